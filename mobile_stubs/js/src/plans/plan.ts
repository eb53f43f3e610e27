/** A signed plan with its blobs, checked: everything a node runs comes from here. */

import { UnsafePlanError } from "../node/errors.js";
import type { Bytes } from "../protocol/bytes.js";
import { short, toHex } from "../protocol/bytes.js";
import { sha256 } from "../protocol/crypto.js";
import type { Opened } from "../protocol/envelope.js";
import type { PeerId } from "../protocol/identity.js";
import { decodeManifest, type PlanManifest, type VectorRole, vectorSize } from "../protocol/manifest.js";
import { type Model, modelFrom } from "../secagg/apply.js";
import { validateFunction } from "./validate.js";

/** A plan that may be run. */
export class Plan {
  private constructor(
    readonly manifest: PlanManifest,
    /** SHA-256 of the manifest's exact bytes. */
    readonly digest: string,
    readonly author: PeerId,
    private readonly blobs: ReadonlyMap<string, Bytes>,
  ) {}

  /**
   * Fetch and check the blobs of an opened plan envelope, and validate every graph.
   *
   * @param fetch gives the bytes of a blob by digest and size; its answer is checked.
   * @throws UnsafePlanError a blob has other bytes than it names, or a graph breaks a rule.
   */
  static async load(opened: Opened, fetch: (digest: string, size: number) => Promise<Bytes>): Promise<Plan> {
    const manifest = decodeManifest(opened.payload);
    const blobs = new Map<string, Bytes>();
    for (const blob of manifest.blobs) {
      const data = await fetch(blob.digest, blob.size);
      if (data.length !== blob.size || toHex(await sha256(data)) !== blob.digest) {
        throw new UnsafePlanError(`plan ${manifest.name}: blob ${short(blob.digest)} has other bytes than it names`);
      }
      blobs.set(blob.digest, data);
    }
    for (const [kind, declared] of Object.entries(manifest.functions)) {
      validateFunction(manifest, kind, declared, blobs.get(declared.graph) as Bytes);
    }
    return new Plan(manifest, opened.digest, opened.signer, blobs);
  }

  /** Parameters that are trained in common; the local ones stand behind them in theta and are in no model. */
  get sharedCount(): number {
    return vectorSize(this.manifest, "theta");
  }

  /** Elements of what is trained in common: shared parameters and buffers. */
  get modelLength(): number {
    return this.sharedCount + this.manifest.buffer_count;
  }

  /**
   * The ONNX bytes of a function.
   *
   * @throws UnsafePlanError the plan has no such function.
   */
  graph(kind: "train" | "evaluate" | "predict"): Bytes {
    const declared = this.manifest.functions[kind];
    if (declared === undefined) throw new UnsafePlanError(`plan ${this.manifest.name} has no function ${kind}`);
    return this.blobs.get(declared.graph) as Bytes;
  }

  /** One of the vectors that training begins with; a role without a blob is all zeros. */
  initial(role: VectorRole): Model {
    const digest = this.manifest.initial[role];
    const blob = digest === undefined ? undefined : this.blobs.get(digest);
    return blob === undefined ? new Float32Array(vectorSize(this.manifest, role)) : modelFrom(blob);
  }

  /** What training in common begins with: shared parameters, then buffers. */
  initialModel(): Model {
    const model = new Float32Array(this.modelLength);
    model.set(this.initial("theta"));
    model.set(this.initial("buffers"), this.sharedCount);
    return model;
  }
}
