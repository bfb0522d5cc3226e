import type { Tensor } from '../../src/graph/tensor.js';
import type { MaskedSequence } from '../../src/models/packed-tokens.js';

/** Places of the tokens of each row of a padded batch (B, T), whichever side is padded. */
const placesOf = (mask: Tensor): number[][] => {
  const [batch, length] = mask.shape as [number, number];
  return Array.from({ length: batch }, (_, row) =>
    Array.from({ length }, (__, t) => row * length + t).filter((at) => Number(mask.data[at]) !== 0),
  );
};

/** The rows of a padded batch (B, T) without their padding. */
export const sequencesOf = (ids: Tensor, mask: Tensor): number[][] =>
  placesOf(mask).map((places) => places.map((at) => Number(ids.data[at])));

/** The same with the tokens that count. */
export const samplesOf = (ids: Tensor, mask: Tensor, completion: Tensor): MaskedSequence[] =>
  placesOf(mask).map((places) => ({
    inputIds: places.map((at) => Number(ids.data[at])),
    completionMask: places.map((at): 0 | 1 => (Number(completion.data[at]) === 1 ? 1 : 0)),
  }));

/** Values of packed tokens (S, W) as rows of the padded batch, flat (B·T, W), zero at padding. */
export function padded(values: Tensor, mask: Tensor): Float32Array {
  const places = placesOf(mask).flat();
  const width = values.data.length / places.length;
  const rows = new Float32Array(mask.data.length * width);
  for (const [token, at] of places.entries()) {
    rows.set((values.data as Float32Array).subarray(token * width, (token + 1) * width), at * width);
  }
  return rows;
}

/** A sequence all of which but its first token counts. */
export const whole = (inputIds: readonly number[]): MaskedSequence => ({
  inputIds,
  completionMask: inputIds.map(() => 1),
});
