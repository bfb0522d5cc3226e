export interface CollateOptions {
  readonly padId: number;
  /** Pads to this length instead of to that of the longest sequence. */
  readonly padTo?: number;
}

/** A batch of sequences, row after row: each array holds `batch * length` numbers. */
export interface TokenBatch {
  readonly inputIds: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
  readonly batch: number;
  readonly length: number;
}

/** Texts of different lengths as one batch at least one token long, padded on the right. Throws RangeError when one is longer than `padTo`. */
export function collateTexts(sequences: readonly (readonly number[])[], { padId, padTo }: CollateOptions): TokenBatch {
  const longest = sequences.reduce((max, { length }) => Math.max(max, length), 1);
  const length = padTo ?? longest;
  if (longest > length) throw new RangeError(`a sequence of ${longest} tokens does not fit into ${length}`);
  const batch = sequences.length;
  const inputIds = new Int32Array(batch * length).fill(padId);
  const attentionMask = new Int32Array(batch * length);
  sequences.forEach((sequence, row) => {
    inputIds.set(sequence, row * length);
    attentionMask.fill(1, row * length, row * length + sequence.length);
  });
  return { inputIds, attentionMask, batch, length };
}
