/** The page at /join: from a file to a trained model, with a person deciding. */

import { DatabaseStorage, Node } from "../browser/index.js";
import type { NodeEvents } from "../node/events.js";
import type { Dataset } from "../plans/data.js";
import { remember } from "./authors.js";
import { lacks } from "./capabilities.js";
import { card } from "./card.js";
import { DataPanel, type Rules } from "./data-panel.js";
import { showDevice } from "./device-panel.js";
import { byId, element } from "./elements.js";
import { OfferedIceServers } from "./ice-servers.js";
import { announce, hideProblem, showError, showProblem } from "./problems.js";
import { RunPanel } from "./run-panel.js";
import { TryIt } from "./try-it.js";

const DATABASE = "peerplan";

/** Where peers connect: the page's own address without its last part, so that a proxy may put it anywhere. */
function signalingUrl(): string {
  const url = new URL(".", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

function showState(state: "idle" | "busy" | "on" | "off", text: string): void {
  const shown = byId("state");
  shown.dataset["state"] = state;
  shown.textContent = text;
}

/** Names who learns the owner's address beside the peers, before anything was connected. */
function showRelays(hosts: readonly string[]): void {
  const shown = byId("relays");
  hideProblem("ice-servers");
  shown.hidden = hosts.length === 0;
  shown.textContent = `To find ways between peers this server has your browser ask ${hosts.join(", ")}, which learn your internet address; what they pass on is encrypted.`;
}

/** The page while it holds an identity: connects, and shows what the node tells. */
class JoinPage {
  private readonly panel = new DataPanel(byId("data-body"), (dataset, rules) => this.connect(dataset, rules));
  private readonly runs = new Map<string, RunPanel>();
  private node: Node | null = null;

  private readonly ice = new OfferedIceServers(showRelays, (reason) => showProblem("ice-servers", `STUN and TURN servers are not known: ${reason}`));

  constructor(private readonly storage: DatabaseStorage) {}

  async open(): Promise<void> {
    const identity = await this.storage.identity();
    showDevice(byId("device"), identity.peerId, () => this.forget());
    await this.ice.load();
    this.panel.open();
  }

  private async connect(dataset: Dataset, { leastPeers, device, stun }: Rules): Promise<void> {
    hideProblem("signaling-down");
    showState("busy", "Connecting …");
    try {
      this.node = await Node.connect(signalingUrl(), {
        identity: await this.storage.identity(),
        storage: this.storage,
        worker: new URL("./worker.js", import.meta.url),
        policy: { authors: "any", minCohort: leastPeers, minSurvivors: leastPeers },
        device,
        iceServers: () => (stun === "" ? this.ice.servers : [{ urls: stun }, ...this.ice.servers]),
        datasets: [dataset],
        ask: true,
      });
    } catch (error) {
      showState("off", "Not connected");
      showError(error);
      return;
    }
    this.listen(this.node, dataset);
    void this.watchEnd(this.node);
    this.isConnected();
    this.panel.close(dataset, () => this.disconnect());
    byId("offers").hidden = false;
    this.countOffers();
    byId("offers-title").focus();
  }

  private isConnected(): void {
    showState("on", `Connected to ${location.host}`);
    hideProblem("signaling-down");
  }

  private listen(node: Node, dataset: Dataset): void {
    node.on("offer", (offer) => this.offered(node, dataset, offer));
    node.on("waiting", ({ run, reason }) => this.runs.get(run)?.stands(`Waiting, by your rules: ${reason}.`));
    node.on("ready", ({ run }) => {
      this.isConnected();
      this.runs.get(run)?.stands("Ready. Waiting for enough peers to begin a round.");
    });
    node.on("behind", ({ run, reason }) => this.runs.get(run)?.stands(`Fetching the run's model again: ${reason}`));
    node.on("withdrawn", ({ run, reason }) => this.runs.get(run)?.closed(`This device has left the run: ${reason}`));
    node.on("round", (event) => {
      this.isConnected();
      this.runs.get(event.run)?.began(event);
    });
    node.on("progress", (event) => this.runs.get(event.run)?.progressed(event));
    node.on("result", (event) => {
      hideProblem("round-failed");
      this.runs.get(event.run)?.ended(event);
    });
    node.on("group", (event) => this.runs.get(event.run)?.summed(event));
    node.on("fetched", (event) => {
      hideProblem("round-failed");
      this.runs.get(event.run)?.fetched(event);
    });
    node.on("ended", ({ run, state, reason }) => {
      this.runs.get(run)?.closed(state === "finished" ? "The run is finished. The model stays here for you to try." : `The run is over: ${state}. ${reason}`);
    });
    node.on("error", ({ code, message, peer }) => {
      if (peer !== null) return; // one peer's bad message was refused: the round goes on
      if (code === "signaling-down") showState("busy", "Reconnecting …");
      showProblem(code, message);
    });
  }

  /** A node that ends by itself has told why: the page goes back to where it can connect again. */
  private async watchEnd(node: Node): Promise<void> {
    for await (const event of node.events()) void event;
    if (this.node !== node) return; // it was the owner
    this.disconnect();
    showState("off", "Disconnected");
  }

  private offered(node: Node, dataset: Dataset, offer: NodeEvents["offer"]): void {
    const { run } = offer;
    this.isConnected();
    const drop = () => {
      shown.remove();
      this.countOffers();
    };
    const shown = card(offer, {
      accept: async () => {
        const panel = this.runPanel(node, dataset, offer);
        this.runs.set(run, panel);
        try {
          announce("Fetching and checking the plan.");
          await node.join(run);
        } catch (error) {
          this.runs.delete(run);
          showError(error);
          return;
        }
        remember(offer.author);
        drop();
        document.body.classList.add("is-training");
        byId("data").before(byId("runs")); // what happens now comes first
        byId("runs").prepend(panel.node);
        panel.focus();
      },
      refuse: async () => {
        await node.decline(run, "the owner refused").catch(showError);
        drop();
        announce("Refused. Nothing of the run was fetched or kept.");
        byId("offers-title").focus();
      },
    });
    byId("offers-body").querySelector(`[data-run="${run}"]`)?.remove(); // the same offer after a reconnect
    byId("offers-body").append(shown);
    this.countOffers();
    announce(`The run ${offer.manifest.name} asks for you.`);
  }

  private runPanel(node: Node, dataset: Dataset, { run, manifest, terms }: NodeEvents["offer"]): RunPanel {
    const canPredict = manifest.functions.predict !== undefined;
    const tryIt = canPredict ? new TryIt(manifest, dataset, (inputs) => node.predict(run, inputs)) : null;
    const panel: RunPanel = new RunPanel(manifest, terms, tryIt, async () => {
      try {
        await node.leave(run);
      } catch (error) {
        showError(error);
      }
      tryIt?.node.remove();
      panel.closed("You have left this run. Rounds go on without you.");
      this.runs.delete(run);
    });
    return panel;
  }

  private countOffers(): void {
    const body = byId("offers-body");
    body.querySelector(".waiting")?.remove();
    if (body.querySelector(".card") === null) {
      body.append(element("p", { class: "waiting" }, "No run asks for data like yours right now. Leave this page open: one that does is shown here, and nothing begins before you say yes."));
    }
  }

  private disconnect(): void {
    const { node } = this;
    this.node = null;
    node?.stop();
    for (const panel of this.runs.values()) panel.closed("Disconnected.");
    this.runs.clear();
    document.body.classList.remove("is-training");
    byId("offers-body").replaceChildren();
    byId("offers").hidden = true;
    showState("idle", "Not connected");
    this.panel.open();
    byId("main").focus();
  }

  private async forget(): Promise<void> {
    this.disconnect();
    this.storage.close();
    await new Promise<void>((resolve, reject) => {
      const request = indexedDB.deleteDatabase(DATABASE);
      request.onsuccess = () => resolve();
      request.onerror = () => reject(request.error ?? new Error("the browser kept its database"));
      request.onblocked = () => reject(new Error("another tab of this page is open; close it first"));
    }).catch(showError);
    location.reload();
  }
}

async function begin(): Promise<void> {
  const missing = await lacks();
  for (const { missing: what, next } of missing) {
    byId("problems").append(element("div", { class: "notice bad" }, element("p", {}, element("strong", {}, what)), element("p", {}, next)));
  }
  if (missing.length > 0) {
    byId("data").hidden = true;
    showState("off", "This browser cannot take part");
    return;
  }
  await new JoinPage(await DatabaseStorage.open(DATABASE)).open();
}

addEventListener("unhandledrejection", ({ reason }) => showError(reason));
begin().catch(showError);
