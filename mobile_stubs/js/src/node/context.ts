/** What the parts of one node share. */

import type { Identity, PeerId } from "../protocol/identity.js";
import type { Device } from "./device.js";
import type { EventHub } from "./events.js";
import type { SignedRun } from "./membership.js";
import type { Storage } from "./platform.js";
import type { Policy, Verdict } from "./policy.js";
import type { CompletedRound } from "./receipts.js";
import type { Session } from "./session.js";
import type { Switchboard } from "./switchboard.js";

/** One node's surroundings. */
export interface NodeContext {
  readonly identity: Identity;
  readonly policy: Policy;
  readonly device: Device;
  readonly storage: Storage;
  readonly hub: EventHub;
  readonly session: Session;
  readonly switchboard: Switchboard;
  /** Aborted when the node stops. */
  readonly stopping: AbortSignal;
  /** Sign and keep a receipt. */
  keepReceipt(signed: SignedRun, verdict: Verdict, completed?: CompletedRound): Promise<void>;
  /** Tell the owner of something of a peer that was refused. */
  refused(peer: PeerId, message: string, run: string | null): void;
  /** Tell the owner what went wrong. */
  report(error: unknown, run: string | null): void;
}
