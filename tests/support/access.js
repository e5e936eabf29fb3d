// What a page lacks for people who do not see it well, or use no mouse. `access.py` has the page run this.
(() => {
  const seen = (one) => one.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !one.closest('.unseen');
  const channels = (text) => {
    // Canvas turns any colour of CSS into red, green, blue and alpha.
    const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [br, bg, bb]) => [r * a + br * (1 - a), g * a + bg * (1 - a), b * a + bb * (1 - a), 1];
  const backOf = (one) => {
    const layers = [];
    for (let at = one; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), channels('Canvas'));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [less, more] = [light(a), light(b)].sort((x, y) => x - y);
    return (more + 0.05) / (less + 0.05);
  };
  const told = (one) => one.outerHTML.slice(0, 120);

  const poorContrast = () => {
    // The least ratio that WCAG 2.2 asks of text (1.4.3, level AA). What cannot be used at the moment is exempt.
    const found = [];
    const walker = document.createTreeWalker(document.querySelector('dialog[open]') ?? document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const one = walker.currentNode.parentElement;
      if (!walker.currentNode.textContent.trim() || !seen(one) || one.closest(':disabled, [aria-hidden=true], noscript')) continue;
      const style = getComputedStyle(one);
      const size = parseFloat(style.fontSize);
      const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      const back = backOf(one);
      const now = ratio(over(channels(style.color), back), back);
      if (now < least) found.push(`${now.toFixed(2)} of ${least}: ${told(one)}`);
    }
    for (const one of document.querySelectorAll('input:not([type=range], [type=color], [type=radio], [type=checkbox]), select')) {
      if (!seen(one) || one.disabled) continue;
      const back = backOf(one);
      for (const part of [undefined, '::placeholder']) {
        const style = getComputedStyle(one, part);
        const colour = channels(style.color);
        colour[3] *= Number(style.opacity);
        const now = ratio(over(colour, back), back);
        if (now < 4.5) found.push(`${now.toFixed(2)} of 4.5${part ?? ''}: ${told(one)}`);
      }
    }
    return found;
  };

  const nameless = () => {
    const found = [];
    for (const one of document.querySelectorAll('button, a, input, select, canvas, [role], [tabindex]')) {
      if (!seen(one) || one.closest('[aria-hidden=true]') || ['group', 'status', 'alert'].includes(one.getAttribute('role'))) continue;
      const labels = [...(one.labels ?? [])].map((label) => label.textContent);
      const name = one.ariaLabel ?? (labels.join(' ').trim() || one.textContent.trim() || one.placeholder);
      const named = one.matches('input, select') ? one.ariaLabel || labels.join('').trim() : name;
      if (!named) found.push(`no name: ${told(one)}`);
      // People say what they read: it must be in the name.
      const read = one.matches('button, a') ? one.innerText.replace(/\s+/g, ' ').trim().toLowerCase() : '';
      if (one.ariaLabel && read && !one.ariaLabel.toLowerCase().includes(read)) found.push(`another name: ${told(one)}`);
    }
    return found;
  };

  const cut = () => {
    const found = [];
    for (const one of document.querySelectorAll('button, a.button, label.action, .transport *, .top *')) {
      if (!seen(one)) continue;
      const parts = one.matches('button, a, label') ? [one, ...one.querySelectorAll('*')] : [one];
      for (const part of parts) {
        if (part.closest('svg, .unseen') || part.matches('.title, input, select, option')) continue;
        const style = getComputedStyle(part);
        if (style.display === 'inline') continue;
        if (part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 1)
          found.push(`cut (${part.scrollWidth} in ${part.clientWidth}, ${part.scrollHeight} in ${part.clientHeight}): ${told(part)}`);
      }
    }
    // Nothing that can be used lies beyond the window, or under something else.
    for (const one of document.querySelectorAll('.top button, .tools button, .bottom button, .bottom select, dialog[open] .dialog-foot > *')) {
      if (!seen(one) || (document.querySelector('dialog[open]') && !one.closest('dialog'))) continue;
      one.scrollIntoView({ block: 'nearest' });
      const { left, right, top, bottom } = one.getBoundingClientRect();
      if (left < -1 || right > innerWidth + 1 || top < -1 || bottom > innerHeight + 1) found.push(`outside: ${told(one)}`);
      const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
      if (hit && hit !== one && !one.contains(hit) && !hit.contains(one)) found.push(`under ${told(hit)}: ${told(one)}`);
    }
    return found;
  };

  const focused = () => {
    const one = document.activeElement;
    if (!one || one === document.body) return null;
    const style = getComputedStyle(one.closest('.format') ?? one);
    const { width, height } = one.getBoundingClientRect();
    const area = ['top', 'tools', 'stage', 'panel', 'bottom', 'start-body', 'dialog'].find((name) => one.closest('.' + name));
    return {
      area, name: one.ariaLabel || one.textContent.trim() || [...(one.labels ?? [])].map((label) => label.textContent.trim()).join(' '),
      outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, size: [width, height],
    };
  };

  return { poorContrast, nameless, cut, focused };
})()
