/** The identity of this device: where it is kept, its fingerprint, and how to be rid of it. */

import type { PeerId } from "../protocol/identity.js";
import { forgetAll } from "./authors.js";
import { button, element } from "./elements.js";
import { fingerprint } from "./format.js";

/** Show the identity kept in this browser's database of a name. */
export function showDevice(body: HTMLElement, peer: PeerId, forget: () => Promise<void>): void {
  const really = element(
    "div",
    { hidden: true, class: "row" },
    element("p", {}, "A new identity is made next time, and models of your runs kept here are gone."),
    button("Forget now", "danger", async () => {
      forgetAll();
      await forget();
    }),
  );
  const ask = button("Forget this device", "quiet", () => {
    really.hidden = !really.hidden;
    ask.setAttribute("aria-expanded", String(!really.hidden));
  });
  ask.setAttribute("aria-expanded", "false");
  body.replaceChildren(
    element("p", {}, "Its identity is ", element("code", { id: "fingerprint", title: peer }, fingerprint(peer))),
    element("p", { class: "help" }, "The key was made here and stays here: no script, this page included, can read it out."),
    ask,
    really,
  );
}
