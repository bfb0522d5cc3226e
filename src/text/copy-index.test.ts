import fc from 'fast-check';
import { expect, it } from 'vitest';
import { stream } from '../random.js';
import { characters } from './characters.js';
import { CopyIndex } from './copy-index.js';

/** By the definition: a character is copied if a stretch of n around it stands in one of the texts. */
function slowly(text: string, texts: readonly string[], n: number): number {
  const points = characters(text);
  if (points.length === 0) return 0;
  if (points.length < n) return texts.some((each) => each.includes(text)) ? 1 : 0;
  const grams = new Set(texts.flatMap((each) => characters(each).map((_, i, all) => all.slice(i, i + n).join('\0'))));
  const copied = points.filter((_, at) =>
    points.some(
      (__, start) =>
        start <= at &&
        at < start + n &&
        start + n <= points.length &&
        grams.has(points.slice(start, start + n).join('\0')),
    ),
  );
  return copied.length / points.length;
}

it('is the share of characters in a copied stretch', () => {
  // Few different characters, one of them outside the basic plane, so that stretches recur.
  const text = fc.array(fc.constantFrom('甲', '乙', '丙', '😀'), { maxLength: 25 }).map((points) => points.join(''));
  fc.assert(
    fc.property(fc.array(text, { maxLength: 6 }), text, fc.integer({ min: 1, max: 6 }), (texts, probe, n) => {
      expect(new CopyIndex(texts, n).copiedShare(probe)).toBeCloseTo(slowly(probe, texts, n), 12);
    }),
  );
});

it('finds every text of a large set, and no stretch of another', () => {
  const random = stream(1, 'texts');
  const text = (): string =>
    Array.from({ length: 40 }, () => String.fromCodePoint(0x4e00 + Math.floor(3000 * random.uniform()))).join('');
  const texts = Array.from({ length: 3000 }, text);
  const index = new CopyIndex(texts);
  expect(texts.every((each) => index.copiedShare(each) === 1)).toBe(true);
  expect(Array.from({ length: 3000 }, text).filter((each) => index.copiedShare(each) > 0)).toEqual([]);
});
