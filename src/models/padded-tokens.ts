/** Sequences padded on the right to one length, row after row: each array holds `batch * length` numbers. */
export interface PaddedTokens {
  readonly inputIds: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
  readonly batch: number;
  readonly length: number;
}

/** The rows of a right-padded batch without their padding, of which an empty one keeps a token: there is something to judge. */
export const sequencesOf = ({ inputIds, attentionMask, batch, length }: PaddedTokens): number[][] =>
  Array.from({ length: batch }, (_, row) => {
    const places = Array.from({ length }, (__, t) => row * length + t);
    const real = places.filter((at) => attentionMask[at] === 1);
    return (real.length === 0 ? places.slice(0, 1) : real).map((at) => inputIds[at]!);
  });
