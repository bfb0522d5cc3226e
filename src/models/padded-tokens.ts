/** Sequences padded on the right to one length, row after row: each array holds `batch * length` numbers. */
export interface PaddedTokens {
  readonly inputIds: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
  /** Where several documents share a row: the number of each token's, from 1; 0 for padding. */
  readonly documents?: Int32Array;
  readonly batch: number;
  readonly length: number;
}
