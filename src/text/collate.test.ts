import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { collate, collatePrompts, collateTexts } from './collate.js';

const bit = fc.constantFrom<0 | 1>(0, 1);
const sample = fc
  .array(fc.tuple(fc.nat(500), bit), { maxLength: 9 })
  .map((tokens) => ({ inputIds: tokens.map(([id]) => id), completionMask: tokens.map(([, mask]) => mask) }));

const rowsOf = (values: Int32Array, length: number) =>
  Array.from({ length: length === 0 ? 0 : values.length / length }, (_, row) => [
    ...values.subarray(row * length, (row + 1) * length),
  ]);

describe('collate', () => {
  it('pads samples on the right', () => {
    const samples = [
      { inputIds: [5, 6, 7], completionMask: [0, 1, 1] as const },
      { inputIds: [8], completionMask: [1] as const },
    ];
    expect(collate(samples, { padId: 9 })).toEqual({
      inputIds: Int32Array.of(5, 6, 7, 8, 9, 9),
      attentionMask: Int32Array.of(1, 1, 1, 1, 0, 0),
      completionMask: Int32Array.of(0, 1, 1, 1, 0, 0),
      batch: 2,
      length: 3,
    });
    expect(collate(samples, { padId: 9, padTo: 5 }).inputIds).toEqual(Int32Array.of(5, 6, 7, 9, 9, 8, 9, 9, 9, 9));
    expect(() => collate(samples, { padId: 9, padTo: 2 })).toThrow(RangeError);
  });

  it('pads prompts on the left', () => {
    expect(collatePrompts([[5, 6, 7], [8], []], { padId: 9 })).toEqual({
      inputIds: Int32Array.of(5, 6, 7, 9, 9, 8, 9, 9, 9),
      attentionMask: Int32Array.of(1, 1, 1, 0, 0, 1, 0, 0, 0),
      batch: 3,
      length: 3,
    });
  });

  it('loses nothing on either side', () => {
    fc.assert(
      fc.property(fc.array(sample, { maxLength: 5 }), fc.nat(4), (samples, extra) => {
        const longest = Math.max(0, ...samples.map(({ inputIds }) => inputIds.length));
        const options = { padId: 999, padTo: longest + extra };
        const { inputIds, attentionMask, completionMask, length } = collate(samples, options);
        const attended = rowsOf(attentionMask, length);
        const kept = (values: Int32Array) =>
          rowsOf(values, length).map((row, i) => row.filter((_, column) => attended[i]?.[column] === 1));
        expect(kept(inputIds)).toEqual(length === 0 ? [] : samples.map((one) => one.inputIds));
        expect(kept(completionMask)).toEqual(length === 0 ? [] : samples.map((one) => one.completionMask));
        const sequences = samples.map((one) => one.inputIds);
        expect(rowsOf(collatePrompts(sequences, options).inputIds, length)).toEqual(
          rowsOf(collateTexts(sequences, options).inputIds, length).map((row, i) => [
            ...row.slice(sequences[i]!.length),
            ...sequences[i]!,
          ]),
        );
      }),
    );
  });
});
