/**
 * Times what a peer does in a round beside training: masks, quantising, summing. Medians of five, in milliseconds. Arguments
 * are lengths of the vector; by default one million and ten.
 */

import { randomBytes } from "../dist/protocol/crypto.js";
import { maskUpdate, unmaskSum } from "../dist/secagg/masking.js";
import { ChunkPlan } from "../dist/secagg/parameters.js";
import { roundingStream } from "../dist/secagg/prg.js";
import { quantise } from "../dist/secagg/quantise.js";

const PEERS = 10;
const RING_BITS = 20;

async function median(work) {
  const times = [];
  for (let i = 0; i < 6; i++) {
    const begun = performance.now();
    await work();
    if (i > 0) times.push(performance.now() - begun); // the first run warms up
  }
  return times.sort((a, b) => a - b)[2].toFixed(1);
}

const lengths = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1_000_000, 10_000_000];
for (const length of lengths) {
  const plan = new ChunkPlan(length, Array.from({ length: PEERS }, (_, i) => i), 1);
  const bounds = Array.from({ length: plan.count }, (_, chunk) => plan.bounds(chunk));
  const keys = Array.from({ length: PEERS }, (_, i) => ({ key: randomBytes(32), add: i % 2 === 0 }));
  const update = {
    values: Float32Array.from({ length: length - 8 }, (_, i) => Math.sin(i) / 100),
    groups: [{ fraction: 1, ratios: [0, 0, 0, 0, 0, 0, 0] }],
  };
  const options = { clip: 0.1, largestValue: 32_767, paddedLength: length, rounding: await roundingStream(randomBytes(32)) };
  const masked = await maskUpdate(new Uint32Array(length), keys, RING_BITS, bounds);
  const chunks = Array.from({ length: PEERS }, () => masked.chunks[0]);
  console.log(
    JSON.stringify({
      elements: length,
      peers: PEERS,
      quantise_ms: await median(() => quantise(update, options)),
      mask_pack_hash_ms: await median(() => maskUpdate(new Uint32Array(length), keys, RING_BITS, bounds)),
      sum_own_chunk_ms: await median(() => unmaskSum(chunks, keys, RING_BITS, 0)),
      packed_bytes: masked.chunks.reduce((sum, chunk) => sum + chunk.length, 0),
    }),
  );
}
