/** Preact, htm and signals in one place, and what joins them: a component that is drawn again when a signal changes. */
import { Component, createRef, Fragment, h, render } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";
import { batch, computed, effect, signal, untracked } from "./vendor/signals-core.mjs";

export { batch, Component, computed, createRef, effect, Fragment, render, signal, untracked };
export const html = htm.bind(h);

/**
 * A component that is drawn again whenever a signal changes that it read while it was drawn.
 *
 * @template P
 * @param {(props: P) => unknown} draw
 */
export function observe(draw) {
  return class extends Component {
    /** @type {(() => void) | null} */ stop = null;

    /** @param {any} props */
    render(props) {
      this.stop?.();
      /** @type {unknown} */ let result;
      let first = true;
      this.stop = effect(() => {
        if (first) result = draw(props);
        else this.setState({});
        first = false;
      });
      return result;
    }

    componentWillUnmount() {
      this.stop?.();
    }
  };
}
