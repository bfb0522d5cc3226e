/**
 * Dimensions: a number, or a polynomial with integer coefficients in named symbols, written canonically
 * (`'B'`, `'B*T'`, `'2*T-1'`, `'P+T'`), so that two equal dimensions are the same string.
 */
export type Dim = number | string;

/** Coefficient of each monomial; a monomial is its sorted symbols joined by `*`, `''` for the constant. */
type Polynomial = Map<string, number>;

/** Products joined by single signs; what a factor may be is checked one by one. */
const polynomial = /^[+-]?[^+-]+([+-][^+-]+)*$/;

function parse(dim: Dim): Polynomial {
  if (typeof dim === 'number') return dim === 0 ? new Map<string, number>() : new Map([['', dim]]);
  if (!polynomial.test(dim)) throw new RangeError(`'${dim}' is not a dimension: use one like 'B', '2*T-1', 'P+T'`);
  const terms: Polynomial = new Map();
  for (const term of dim.match(/[+-]?[^+-]+/g) ?? []) {
    let coefficient = term.startsWith('-') ? -1 : 1;
    const symbols: string[] = [];
    for (const factor of term.replace(/^[+-]/, '').split('*')) {
      if (/^\d+$/.test(factor)) coefficient *= Number(factor);
      else if (/^[A-Za-z_]\w*$/.test(factor)) symbols.push(factor);
      else throw new RangeError(`'${dim}' is not a dimension: '${factor}' is neither a number nor a symbol`);
    }
    accumulate(terms, symbols.sort().join('*'), coefficient);
  }
  return terms;
}

function accumulate(terms: Polynomial, monomial: string, coefficient: number): void {
  const sum = (terms.get(monomial) ?? 0) + coefficient;
  if (sum === 0) terms.delete(monomial);
  else terms.set(monomial, sum);
}

const degree = (monomial: string): number => (monomial === '' ? 0 : monomial.split('*').length);

function format(terms: Polynomial): Dim {
  if (terms.size === 0) return 0;
  const constant = terms.get('');
  if (terms.size === 1 && constant !== undefined) return constant;
  return [...terms]
    .sort(([a], [b]) => degree(b) - degree(a) || (a < b ? -1 : 1))
    .map(([monomial, coefficient], index) => {
      const sign = coefficient < 0 ? '-' : index === 0 ? '' : '+';
      const size = Math.abs(coefficient);
      if (monomial === '') return `${sign}${size}`;
      return size === 1 ? `${sign}${monomial}` : `${sign}${size}*${monomial}`;
    })
    .join('');
}

/** The canonical form of a dimension; throws RangeError when it is not one. */
export function canonical(dim: Dim): Dim {
  const form = typeof dim === 'number' ? dim : format(parse(dim));
  if (typeof form === 'number' && (!Number.isInteger(form) || form < 0)) {
    throw new RangeError(`${dim} is not a dimension: use an integer ≥ 0`);
  }
  return form;
}

export function addDims(a: Dim, b: Dim): Dim {
  if (typeof a === 'number' && typeof b === 'number') return a + b;
  const sum = parse(a);
  for (const [monomial, coefficient] of parse(b)) accumulate(sum, monomial, coefficient);
  return format(sum);
}

export function mulDims(a: Dim, b: Dim): Dim {
  // + 0, so that no product is −0
  if (typeof a === 'number' && typeof b === 'number') return a * b + 0;
  const product: Polynomial = new Map();
  for (const [ma, ca] of parse(a)) {
    for (const [mb, cb] of parse(b)) {
      const symbols = [...(ma === '' ? [] : ma.split('*')), ...(mb === '' ? [] : mb.split('*'))].sort();
      accumulate(product, symbols.join('*'), ca * cb);
    }
  }
  return format(product);
}

export const subDims = (a: Dim, b: Dim): Dim => addDims(a, mulDims(-1, b));

/** Number of elements of a shape. */
export const sizeOf = (shape: readonly Dim[]): Dim => shape.reduce<Dim>(mulDims, 1);

export const sameShape = (a: readonly Dim[], b: readonly Dim[]): boolean =>
  a.length === b.length && a.every((dim, axis) => dim === b[axis]);

/** The dimension as a list of (coefficient, symbols) terms, for emission and evaluation. */
export function termsOf(dim: Dim): { coefficient: number; symbols: string[] }[] {
  return [...parse(dim)].map(([monomial, coefficient]) => ({
    coefficient,
    symbols: monomial === '' ? [] : monomial.split('*'),
  }));
}

export const symbolsOf = (dim: Dim): string[] => [...new Set(termsOf(dim).flatMap((term) => term.symbols))];

/** The value of a dimension under given values of its symbols; throws RangeError for an unbound symbol. */
export function evaluateDim(dim: Dim, bindings: ReadonlyMap<string, number>): number {
  if (typeof dim === 'number') return dim;
  return termsOf(dim).reduce((sum, { coefficient, symbols }) => {
    return (
      sum +
      symbols.reduce((product, symbol) => {
        const value = bindings.get(symbol);
        if (value === undefined) throw new RangeError(`dimension '${dim}': no value for the symbol '${symbol}'`);
        return product * value;
      }, coefficient)
    );
  }, 0);
}

export const formatShape = (shape: readonly Dim[]): string => `(${shape.join(', ')})`;
