/** Builds elements; text is always text. */

type Child = Node | string | null;
type Attributes = Readonly<Record<string, string | number | boolean | null | ((event: never) => void)>>;

/** An element: attributes by name, `on…` for listeners, true for an empty attribute, false and null for none. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  fill(made, attributes, children);
  return made;
}

/** An element of a drawing. */
export function drawn<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[K] {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(made, attributes, children);
  return made;
}

/** The element of the page with an id. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`this page has no element ${id}`);
  return found;
}

/** A list of terms and what they are. */
export function facts(entries: readonly (readonly [string, Child])[]): HTMLElement {
  return element("dl", { class: "facts" }, ...entries.map(([term, what]) => element("div", {}, element("dt", {}, term), element("dd", {}, what))));
}

/** A button that cannot be pressed twice while it works. */
export function button(text: string, kind: string, work: () => Promise<void> | void): HTMLButtonElement {
  const made: HTMLButtonElement = element("button", { type: "button", class: kind }, text);
  const press = async (): Promise<void> => {
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true"); // `disabled` would throw the keyboard's place away
    try {
      await work();
    } finally {
      made.removeAttribute("aria-disabled");
    }
  };
  made.addEventListener("click", () => void press());
  return made;
}

let labels = 0;

/** A control with its label, and a line of help beneath. */
export function labelled(text: string, control: HTMLElement, help = ""): HTMLElement {
  control.id ||= `control-${++labels}`;
  const label = element("label", { for: control.id }, text);
  if (help === "") return element("div", { class: "field" }, label, control);
  const note = element("p", { class: "help", id: `${control.id}-help` }, help);
  control.setAttribute("aria-describedby", note.id);
  return element("div", { class: "field" }, label, control, note);
}

/** A choice among texts by value. */
export function choice(options: readonly (readonly [string, string])[], chosen: string): HTMLSelectElement {
  const made = element("select");
  for (const [value, text] of options) made.append(element("option", { value, selected: value === chosen }, text));
  return made;
}

function fill(made: Element, attributes: Attributes, children: readonly Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value as EventListener);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null) made.append(child);
}
