import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { completionOf, headlineOf, type Row } from './row.js';
import { normalise, splitFiles, splitRows } from './split.js';

function rowOf(headline: string | undefined, completion: string, line = 2): Row {
  return { file: 'data.csv', line, fields: { completion, ...(headline !== undefined && { headline }) } };
}

// Few texts, in several spellings, so that rows of one and of several files share headlines and completions.
const spelt = (texts: string[]) =>
  fc.tuple(fc.constantFrom(...texts), fc.constantFrom('', '！', ' ')).map(([text, end]) => text + end);
const headline = fc.oneof(
  spelt(['猫排队', '狗开会', 'Ａ股', 'a股', '鱼', '雨', '风', '雪']),
  fc.constant(undefined),
  fc.constant(''),
);
const row = fc
  .tuple(headline, spelt(['好笑', '不好笑', '哈', '呵呵', '嘻嘻', '笑死']))
  .map(([title, completion]) => rowOf(title, completion));
const files = fc.record({ sft: fc.array(row, { maxLength: 30 }), rm: fc.array(row, { maxLength: 30 }) });
const options = fc.record({ seed: fc.nat(1000), validationFraction: fc.double({ min: 0, max: 1, noNaN: true }) });

const many = Array.from({ length: 2000 }, (_, i) => rowOf(`标题${i}`, `笑话${i}`, i + 2));

describe('the split', () => {
  it('keeps headlines and completions of validation and test rows out of every train side', () => {
    fc.assert(
      fc.property(files, fc.array(row, { maxLength: 3 }), options, (data, test, split) => {
        const sides = Object.values(splitFiles(data, split, test));
        const heldOut = [...sides.flatMap(({ validation }) => validation), ...test];
        const headlines = new Set(
          heldOut
            .map(headlineOf)
            .filter((text) => text !== undefined)
            .map(normalise),
        );
        const completions = new Set(heldOut.map(completionOf).map(normalise));
        for (const trained of sides.flatMap(({ train }) => train)) {
          const title = headlineOf(trained);
          expect(title !== undefined && headlines.has(normalise(title))).toBe(false);
          expect(completions.has(normalise(completionOf(trained)))).toBe(false);
        }
      }),
    );
  });

  it('loses no row and drops only from train', () => {
    fc.assert(
      fc.property(files, options, (data, split) => {
        for (const [name, { train, validation, dropped }] of Object.entries(splitFiles(data, split))) {
          const rows = data[name as keyof typeof data];
          expect(validation).toEqual(splitRows(rows, split).validation);
          expect(new Set([...train, ...validation, ...dropped])).toEqual(new Set(rows));
          expect(train.length + validation.length + dropped.length).toBe(rows.length);
        }
      }),
    );
  });

  it('puts a row on the same side in any order and any file', () => {
    fc.assert(
      fc.property(fc.array(row, { maxLength: 30 }), options, fc.nat(), (rows, split, turn) => {
        const { validation } = splitRows(rows, split);
        const at = rows.length === 0 ? 0 : turn % rows.length;
        const turned = [...rows.slice(at), ...rows.slice(0, at)].reverse();
        expect(new Set(splitRows(turned, split).validation)).toEqual(new Set(validation));
        for (const one of rows)
          expect(splitRows([one], split).validation).toHaveLength(validation.includes(one) ? 1 : 0);
      }),
    );
  });

  it('changes with the seed, keeps near the fraction, and grows with it', () => {
    const held = (seed: number, validationFraction: number) => splitRows(many, { seed, validationFraction }).validation;
    expect(held(0, 0.1)).not.toEqual(held(1, 0.1));
    expect(held(0, 0.1)).toEqual(held(0, 0.1));
    for (const seed of [0, 1, 2]) {
      expect(Math.abs(held(seed, 0.1).length - 200)).toBeLessThan(60);
      expect(held(seed, 0)).toHaveLength(0);
      expect(held(seed, 1)).toHaveLength(many.length);
      const larger = new Set(held(seed, 0.2));
      expect(held(seed, 0.1).every((one) => larger.has(one))).toBe(true);
    }
  });

  it('is the same forever: these sides must not move between versions', () => {
    const held = splitRows(many.slice(0, 60), { seed: 42, validationFraction: 0.1 }).validation;
    expect(held.map(headlineOf)).toEqual(['标题2', '标题20', '标题23']);
  });

  it('takes spellings that differ in case, width, spaces or punctuation for one text', () => {
    expect(normalise('Ａ股　大涨！')).toBe(normalise('a股大涨'));
    expect(normalise('？？')).not.toBe(normalise('！'));
    expect(normalise('猫')).not.toBe(normalise('狗'));
  });
});
