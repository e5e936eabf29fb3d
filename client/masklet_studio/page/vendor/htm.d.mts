/** The types of htm's one function, as the page uses it. Read by tsc alone. */
declare const htm: { bind(h: unknown): (strings: TemplateStringsArray, ...values: unknown[]) => any };
export default htm;
