/** The answer of a peer under test to one request. Runs in Node and in a browser alike. */

import { ProtocolError } from "../protocol/errors.js";
import type { Json } from "./json.js";
import { OPERATIONS } from "./operations.js";

/** Valid with an output, invalid with what refused, or unsupported. */
export async function answer(request: { id: string; op: string; input: Json }): Promise<Json> {
  const operation = Object.hasOwn(OPERATIONS, request.op) ? OPERATIONS[request.op] : undefined;
  if (operation === undefined) return { id: request.id, result: "unsupported" };
  try {
    return { id: request.id, result: "valid", output: await operation(request.input) };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return { id: request.id, result: "invalid", rule: `${error.code}: ${error.message}` };
  }
}
