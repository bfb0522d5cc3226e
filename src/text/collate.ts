export interface CollateOptions {
  readonly padId: number;
  /** Pads to this length instead of to that of the longest sample. */
  readonly padTo?: number;
}

/** A batch of sequences, row after row: each array holds `batch * length` numbers. */
export interface TokenBatch {
  readonly inputIds: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
  /** Where several documents share a row: the number of each token's, from 1; 0 for padding. */
  readonly documents?: Int32Array;
  readonly batch: number;
  readonly length: number;
}

export interface SampleBatch extends TokenBatch {
  /** 1 for tokens to learn; 0 for prompts and padding. */
  readonly completionMask: Int32Array;
}

export interface Sample {
  readonly inputIds: readonly number[];
  readonly completionMask: readonly (0 | 1)[];
}

/** Samples of different lengths as one batch, padded on the right. Throws RangeError when one is longer than `padTo`. */
export function collate(samples: readonly Sample[], options: CollateOptions): SampleBatch {
  const batch = pad(
    samples.map(({ inputIds }) => inputIds),
    options,
    'right',
  );
  const completionMask = new Int32Array(batch.inputIds.length);
  samples.forEach(({ completionMask: mask }, row) => {
    completionMask.set(mask, row * batch.length);
  });
  return { ...batch, completionMask };
}

/** Sequences as one batch, padded on the right: texts for a classifier. */
export function collateTexts(sequences: readonly (readonly number[])[], options: CollateOptions): TokenBatch {
  return pad(sequences, options, 'right');
}

/** Sequences as one batch, padded on the left: prompts, so that what is generated continues each at the same column. */
export function collatePrompts(sequences: readonly (readonly number[])[], options: CollateOptions): TokenBatch {
  return pad(sequences, options, 'left');
}

function pad(
  sequences: readonly (readonly number[])[],
  { padId, padTo }: CollateOptions,
  side: 'left' | 'right',
): TokenBatch {
  const longest = sequences.reduce((max, { length }) => Math.max(max, length), 0);
  const length = padTo ?? longest;
  if (longest > length) throw new RangeError(`a sequence of ${longest} tokens does not fit into ${length}`);
  const batch = sequences.length;
  const inputIds = new Int32Array(batch * length).fill(padId);
  const attentionMask = new Int32Array(batch * length);
  sequences.forEach((sequence, row) => {
    const start = row * length + (side === 'left' ? length - sequence.length : 0);
    inputIds.set(sequence, start);
    attentionMask.fill(1, start, start + sequence.length);
  });
  return { inputIds, attentionMask, batch, length };
}
