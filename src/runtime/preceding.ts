/**
 * One of the elements from `start` on. Do those that come before it, by falling value and of equal ones by place, have
 * together less than a mass?
 */
export interface PrecedingQuery {
  readonly start: number;
  /** Its place among them. */
  readonly place: number;
  readonly value: number;
  readonly mass: number;
  /** The sum of all. */
  readonly total: number;
}

/** A row is taken in so many parts, as far as it takes to know. */
const PARTS = 4;

/** Elements after which it is asked whether they suffice. */
const STEP = 2048;

/** Adds up what comes before and after an element, over parts of a row, until it decides. */
export class Preceding {
  #before = 0;
  #after = 0;

  constructor(private readonly query: Omit<PrecedingQuery, 'start'>) {}

  /**
   * Takes the next part of the row in.
   *
   * @param start place of the part's first element
   * @returns whether what comes before has less than the mass, where the elements so far tell
   */
  take(part: Float32Array, start: number): boolean | undefined {
    for (let from = 0; from < part.length; from += STEP) {
      const known = this.#add(part, from, Math.min(from + STEP, part.length), start);
      if (known !== undefined) return known;
    }
    return undefined;
  }

  #add(part: Float32Array, from: number, to: number, start: number): boolean | undefined {
    const { place, value, mass, total } = this.query;
    let [before, after] = [0, 0];
    for (let i = from; i < to; i++) {
      const other = part[i]!;
      if (other > value || (other === value && start + i < place)) before += other;
      else after += other;
    }
    this.#before += before;
    this.#after += after;
    if (this.#before >= mass) return false;
    return total - this.#after < mass ? true : undefined;
  }

  /** What all parts together say. */
  get decided(): boolean {
    return this.#before < this.query.mass;
  }
}

/**
 * Answers a query on `length` elements.
 *
 * @param elements so many elements from one on, which are read before the next are asked for
 */
export async function isPrecededByLess(
  query: PrecedingQuery,
  length: number,
  elements: (start: number, count: number) => Promise<Float32Array>,
): Promise<boolean> {
  const preceding = new Preceding(query);
  const part = Math.ceil(length / PARTS);
  for (let first = 0; first < length; first += part) {
    const known = preceding.take(await elements(query.start + first, Math.min(part, length - first)), first);
    if (known !== undefined) return known;
  }
  return preceding.decided;
}
