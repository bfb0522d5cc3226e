import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addDims,
  canonical,
  evaluateDim,
  formatShape,
  mulDims,
  sameShape,
  sizeOf,
  subDims,
  symbolsOf,
  termsOf,
  type Dim,
} from './dim.js';

const leaf: fc.Arbitrary<Dim> = fc.oneof(fc.nat(5), fc.constantFrom('B', 'T', 'P', 'head_2'));

/** Sums and products of symbols and small numbers. */
const dim: fc.Arbitrary<Dim> = fc.letrec<{ dim: Dim }>((tie) => ({
  dim: fc.oneof(
    { maxDepth: 3 },
    leaf,
    fc.tuple(tie('dim'), tie('dim')).map(([a, b]) => addDims(a, b)),
    fc.tuple(tie('dim'), tie('dim')).map(([a, b]) => mulDims(a, b)),
    fc.tuple(tie('dim'), leaf).map(([a, b]) => subDims(a, b)),
  ),
})).dim;

const bindings = fc
  .record({ B: fc.nat(7), T: fc.nat(7), P: fc.nat(7), head_2: fc.nat(7) })
  .map((sizes) => new Map(Object.entries(sizes)));

describe('canonical', () => {
  it.each<[Dim, Dim]>([
    ['T*B', 'B*T'],
    ['B*2*T', '2*B*T'],
    ['T+P', 'P+T'],
    ['1+T', 'T+1'],
    ['T-1+T', '2*T-1'],
    ['B-B', 0],
    ['B-B+3', 3],
    ['2+3*4', 14],
    ['0*B+T', 'T'],
    ['1*B', 'B'],
    ['-T+B', 'B-T'],
    ['T+B*T', 'B*T+T'],
    ['+B', 'B'],
    ['7', 7],
    [7, 7],
    [0, 0],
  ])('writes %s as %s', (written, expected) => {
    expect(canonical(written)).toBe(expected);
  });

  it.each<Dim>(['', '+', 'B-', 'B--T', 'B+-T', 'B**T', '*B', 'B*', '2B', 'B T', 'B+ T', 'B/2', '(B)', '1.5', 'ß'])(
    "refuses '%s'",
    (written) => {
      expect(() => canonical(written)).toThrow(RangeError);
    },
  );

  it.each<Dim>([-1, 1.5, Number.NaN, Infinity, '-1', '2-5'])('refuses the number %s', (written) => {
    expect(() => canonical(written)).toThrow('use an integer ≥ 0');
  });

  it('changes nothing the second time', () => {
    fc.assert(
      fc.property(dim, (a) => {
        if (typeof a === 'string') expect(canonical(a)).toBe(a);
      }),
    );
  });
});

describe('arithmetic of dimensions', () => {
  it('is a commutative ring, in which equal dimensions are the same string', () => {
    fc.assert(
      fc.property(dim, dim, dim, (a, b, c) => {
        expect(addDims(a, b)).toBe(addDims(b, a));
        expect(addDims(addDims(a, b), c)).toBe(addDims(a, addDims(b, c)));
        expect(addDims(a, 0)).toBe(a);
        expect(subDims(a, a)).toBe(0);
        expect(subDims(addDims(a, b), b)).toBe(a);
        expect(mulDims(a, b)).toBe(mulDims(b, a));
        expect(mulDims(mulDims(a, b), c)).toBe(mulDims(a, mulDims(b, c)));
        expect(mulDims(a, 1)).toBe(a);
        expect(mulDims(a, addDims(b, c))).toBe(addDims(mulDims(a, b), mulDims(a, c)));
      }),
    );
  });

  it('means what the numbers mean', () => {
    fc.assert(
      fc.property(dim, dim, bindings, (a, b, sizes) => {
        const value = (x: Dim): number => evaluateDim(x, sizes);
        expect(value(addDims(a, b))).toBe(value(a) + value(b));
        expect(value(subDims(a, b))).toBe(value(a) - value(b));
        expect(value(mulDims(a, b))).toBe(value(a) * value(b) + 0);
        expect(value(sizeOf([a, b, 3]))).toBe(value(a) * value(b) * 3 + 0);
      }),
    );
  });

  it('gives the terms and symbols of a dimension', () => {
    expect(termsOf('2*B*T-1')).toEqual([
      { coefficient: 2, symbols: ['B', 'T'] },
      { coefficient: -1, symbols: [] },
    ]);
    expect(symbolsOf('B*T+B-1')).toEqual(['B', 'T']);
    expect(symbolsOf(4)).toEqual([]);
  });

  it('names the symbol that has no value', () => {
    expect(() => evaluateDim('B*T', new Map([['B', 2]]))).toThrow("dimension 'B*T': no value for the symbol 'T'");
  });
});

describe('shapes', () => {
  it('have as many elements as the product of their dimensions', () => {
    expect(sizeOf([])).toBe(1);
    expect(sizeOf(['B', 2, 'T'])).toBe('2*B*T');
    expect(sizeOf([0, 'T'])).toBe(0);
  });

  it('are the same when every dimension is', () => {
    expect(sameShape(['B', 2], ['B', 2])).toBe(true);
    expect(sameShape(['B', 2], ['B', 3])).toBe(false);
    expect(sameShape(['B'], ['B', 1])).toBe(false);
  });

  it('print as in an error message', () => {
    expect(formatShape(['B', 2])).toBe('(B, 2)');
    expect(formatShape([])).toBe('()');
  });
});
