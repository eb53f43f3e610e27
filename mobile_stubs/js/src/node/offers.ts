/** Offers of runs: opened, judged by the owner's policy, and turned into a part in the run. */

import type { Dataset } from "../plans/data.js";
import { schemaOf } from "../plans/data.js";
import { Plan } from "../plans/plan.js";
import { type Bytes, short } from "../protocol/bytes.js";
import { checkEnvelope, type Opened, PLAN_TYPE, RUN_TYPE } from "../protocol/envelope.js";
import { ProtocolError } from "../protocol/errors.js";
import { decodeManifest, type PlanManifest } from "../protocol/manifest.js";
import type { ServerMessages } from "../protocol/signaling/messages.js";
import { decodeTerms } from "../protocol/terms.js";
import type { NodeContext } from "./context.js";
import { Membership, type SignedRun } from "./membership.js";
import type { Runtime } from "./platform.js";
import { decide, type Policy, type Verdict } from "./policy.js";
import { Trainer } from "./trainer.js";

/** Offers looked at or waiting for an answer together; others are offered again when this node registers again. */
export const MAX_OFFERS = 64;

/** An offer that is authentic, and what the policy says of it. */
export interface OpenOffer {
  readonly signed: SignedRun;
  readonly plan: Opened;
  readonly manifest: PlanManifest;
  readonly verdict: Verdict;
}

/**
 * Terms and plan as signed, after checking that they belong together, with the policy's verdict.
 *
 * @throws ProtocolError a signature, a digest or the author does not fit.
 */
export async function openOffer(
  offer: ServerMessages["offer"],
  policy: Policy,
  datasets: readonly Dataset[],
): Promise<OpenOffer> {
  const run = await checkEnvelope(offer.envelope, RUN_TYPE, "run terms");
  const plan = await checkEnvelope(offer.plan_envelope, PLAN_TYPE, "plan");
  const terms = decodeTerms(run.payload);
  if (run.digest !== offer.run || terms.plan !== plan.digest || run.signer !== plan.signer) {
    throw new ProtocolError(
      `offer ${short(offer.run)}: signaling sent terms ${short(run.digest)} by ${short(run.signer)} with plan ` +
        `${short(plan.digest)} by ${short(plan.signer)}; they do not belong together`,
    );
  }
  const manifest = decodeManifest(plan.payload);
  const schemas = datasets.map((dataset) => schemaOf(dataset, false));
  const verdict = decide(policy, terms, run.signer, manifest, schemas);
  return { signed: { run: run.digest, author: run.signer, terms }, plan, manifest, verdict };
}

/** Fetches the plans of accepted offers, one at a time in memory however many are offered. */
export class Entrance {
  private order: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly context: NodeContext,
    private readonly runtime: Runtime,
    private readonly nodeSeed: Bytes,
  ) {}

  /**
   * A part in an offered run, on the dataset its verdict names.
   *
   * @throws UnsafePlanError, UnusableDataError, NodeError the plan is not run here, or could not be had.
   */
  enter(offer: OpenOffer, dataset: Dataset, signal?: AbortSignal): Promise<Membership> {
    const turn = this.order.then(() => this.fetch(offer, dataset, signal));
    this.order = turn.catch(() => undefined);
    return turn;
  }

  private async fetch({ signed, plan: opened }: OpenOffer, dataset: Dataset, signal?: AbortSignal): Promise<Membership> {
    const { session, storage, identity } = this.context;
    const plan = await Plan.load(opened, (digest, size) => session.blob(digest, size, signal));
    const trainer = new Trainer(plan, signed.terms, dataset, this.runtime, this.nodeSeed);
    return Membership.restore(signed, plan, trainer, identity.peerId, storage);
  }
}
