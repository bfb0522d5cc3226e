import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { collateTexts } from './collate.js';

const rowsOf = (values: Int32Array, length: number) =>
  Array.from({ length: length === 0 ? 0 : values.length / length }, (_, row) => [
    ...values.subarray(row * length, (row + 1) * length),
  ]);

describe('collateTexts', () => {
  it('pads texts on the right', () => {
    const texts = [[5, 6, 7], [8]];
    expect(collateTexts(texts, { padId: 9 })).toEqual({
      inputIds: Int32Array.of(5, 6, 7, 8, 9, 9),
      attentionMask: Int32Array.of(1, 1, 1, 1, 0, 0),
      batch: 2,
      length: 3,
    });
    expect(collateTexts(texts, { padId: 9, padTo: 5 }).inputIds).toEqual(Int32Array.of(5, 6, 7, 9, 9, 8, 9, 9, 9, 9));
    expect(() => collateTexts(texts, { padId: 9, padTo: 2 })).toThrow(RangeError);
  });

  it('loses nothing', () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.nat(500), { maxLength: 9 }), { maxLength: 5 }), fc.nat(4), (texts, extra) => {
        const padTo = Math.max(1, ...texts.map((text) => text.length)) + extra;
        const { inputIds, attentionMask, length } = collateTexts(texts, { padId: 999, padTo });
        const attended = rowsOf(attentionMask, length);
        const kept = rowsOf(inputIds, length).map((row, i) => row.filter((_, column) => attended[i]![column] === 1));
        expect(kept).toEqual(length === 0 ? [] : texts);
      }),
    );
  });
});
