/**
 * Every error of the protocol core, as one tree. `code` is the wire code (spec/errors.md).
 *
 *     ProtocolError
 *     ├── EncodingError        malformed-message   bytes that do not parse
 *     ├── LimitExceededError   limit-exceeded      a size or a count above its bound
 *     ├── SignatureError       bad-signature       a signature that does not verify
 *     ├── ManifestError        bad-manifest        a manifest that contradicts itself
 *     ├── TermsError           bad-terms           run terms that contradict themselves
 *     ├── SchemaMismatchError  schema-mismatch     a dataset that does not fit a plan
 *     ├── LinkError            link-failed         negotiation, fingerprint or framing
 *     └── RoundError           round-failed        p2psa/1 cannot go on
 *         ├── MessageError     refused-message     one message is refused, the round goes on
 *         └── RoundFailedError round-failed        the attempt is over without a result
 */

/** Base of all errors of the protocol core. */
export class ProtocolError extends Error {
  readonly code: string = "protocol-error";
  override get name(): string {
    return this.constructor.name;
  }
}

/** Bytes or text that do not parse as what they should be. */
export class EncodingError extends ProtocolError {
  override readonly code = "malformed-message";
}

/** A size or a count above its bound; raised before memory is taken for it. */
export class LimitExceededError extends ProtocolError {
  override readonly code = "limit-exceeded";
}

/** A signature that does not verify, or that is made by another key than expected. */
export class SignatureError extends ProtocolError {
  override readonly code = "bad-signature";
}

/** A plan manifest that contradicts itself or asks for something no node runs. */
export class ManifestError extends ProtocolError {
  override readonly code = "bad-manifest";
}

/** Terms of a run that contradict themselves or their plan. */
export class TermsError extends ProtocolError {
  override readonly code = "bad-terms";
}

/** A dataset whose fields do not fit what a plan reads. */
export class SchemaMismatchError extends ProtocolError {
  override readonly code = "schema-mismatch";
}

/** A link between two peers that could not be made, or that broke its rules. */
export class LinkError extends ProtocolError {
  override readonly code = "link-failed";
}

/** A round of p2psa/1 that cannot go on. */
export class RoundError extends ProtocolError {
  override readonly code: string = "round-failed";
}

/** A message that is refused; the round goes on without it. */
export class MessageError extends RoundError {
  override readonly code = "refused-message";
}

/** The attempt cannot end in a result. */
export class RoundFailedError extends RoundError {
  override readonly code = "round-failed";
}
