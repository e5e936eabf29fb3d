/** What the page uses of preact's types: its own type files need the whole package. Read by tsc alone. */
export type Node = { type: unknown; props: unknown };
export class Component<P = Record<string, unknown>> {
  constructor(props?: P);
  props: P;
  base: Element | null;
  setState(state: object): void;
  forceUpdate(): void;
  componentDidMount?(): void;
  componentWillUnmount?(): void;
  shouldComponentUpdate?(next: P): boolean;
  render(props: P): unknown;
}
export function h(type: unknown, props: unknown, ...children: unknown[]): Node;
export function render(node: unknown, parent: Element): void;
export function createRef<T = any>(): { current: T | null };
export const Fragment: unknown;
