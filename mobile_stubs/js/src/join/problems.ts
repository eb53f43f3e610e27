/** What went wrong, and what a person can do next. */

import { byId, element } from "./elements.js";

const NEXT: Readonly<Record<string, string>> = {
  "signaling-down": "Check your connection. The page dials again by itself; if it was just opened, press Connect again.",
  "signaling-untrusted": "Do not go on: somebody may stand between you and the server. Ask whoever sent you here.",
  replaced: "The same identity has connected from another tab. Go on there, or close that tab and load this page again.",
  "ice-servers": "The page asks this server again by itself. Until then peers behind some routers cannot be reached.",
  "wrong-audience": "The server does not know itself by this address. Use the address its operator gave you.",
  "version-mismatch": "Load this page again; if that does not help, the server is older or newer than its page.",
  "no-webrtc": "Allow WebRTC in this browser's settings or extensions, or open the page in another browser.",
  "storage-failed": "Leave the private window, allow this site to keep data, or free some disk space, and load the page again.",
  "storage-in-use": "Go on in that tab, or close it and load this page again.",
  "not-now": "Change what stands in the way, such as plugging the device in, and press Accept again; the offer stays.",
  "unusable-data": "Correct the file or its settings above; nothing was sent.",
  "unsafe-plan": "The run was refused. Tell its author; your data was not read.",
  "execution-failed": "Load the page again. If it comes back, this plan does not run on this device.",
  "round-failed": "Nothing to do: a round that fails is tried again with whoever is there.",
};

/** Show an error above everything else; a later one of the same code replaces it. */
export function showProblem(code: string, message: string): void {
  const next = NEXT[code] ?? "If it comes back, load the page again.";
  const shown = element(
    "div",
    { class: ["round-failed", "signaling-down", "ice-servers"].includes(code) ? "notice" : "notice bad", "data-code": code },
    element("p", {}, element("strong", {}, message)),
    element("p", {}, next),
    element("button", { type: "button", class: "quiet", onclick: () => shown.remove() }, "Hide this"),
  );
  hideProblem(code);
  byId("problems").append(shown);
}

/** Take an error away, once it is over. */
export function hideProblem(code: string): void {
  byId("problems").querySelector(`[data-code="${CSS.escape(code)}"]`)?.remove();
}

/** Show whatever was thrown. */
export function showError(error: unknown): void {
  const { code } = error as { code?: unknown };
  const message = error instanceof Error ? error.message : String(error);
  showProblem(typeof code === "string" ? code : "internal-error", message);
}

/** Say something to who listens rather than looks. */
export function announce(text: string): void {
  byId("news").textContent = text;
}
