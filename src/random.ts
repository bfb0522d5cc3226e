import { createHash } from 'node:crypto';
import { z } from 'zod';

/** One part of a stream's path, for example `'rollout'` or a step number. */
export type PathComponent = string | number;

const keyFormat = /^[0-9a-f]{32}$/;

/** Where a stream stands, as JSON: `position` counts the 32-bit words drawn from the stream that `key` names. */
export const randomStateSchema = z.strictObject({
  key: z.string().regex(keyFormat),
  position: z.int().min(0),
});
export type RandomState = z.infer<typeof randomStateSchema>;

/**
 * The random stream of a seed and a path: independent of every other path's, and the same on every machine, whatever
 * was drawn elsewhere before. `stream(seed, 'rollout', step, prompt, sample)` is one sample's own stream.
 *
 * Seed and path are hashed (SHA-256) into the 128 bits that distinguish streams; `'1'` and `1` are different components.
 *
 * @throws RangeError when the seed or a number in the path is not a safe integer
 */
export function stream(seed: number, ...path: readonly PathComponent[]): RandomStream {
  for (const component of [seed, ...path]) {
    if (typeof component === 'number' && !Number.isSafeInteger(component)) {
      throw new RangeError(
        `the seed and the numbers in a stream's path must be safe integers, but one is ${component}`,
      );
    }
  }
  const digest = createHash('sha256')
    .update(JSON.stringify([seed, ...path]))
    .digest('hex');
  return new RandomStream({ key: digest.slice(0, 32), position: 0 });
}

/**
 * The stream that `state()` was taken from, going on where it stood.
 *
 * @throws ZodError when the state is not one that `state()` returns
 */
export const restoreStream = (state: RandomState): RandomStream => new RandomStream(randomStateSchema.parse(state));

/**
 * A sequence of random numbers from a counter-based generator, Philox4x32-10: block b of four words is a function of
 * the stream's key and b alone, so a stream has a position instead of a state, and starting one costs nothing.
 */
export class RandomStream {
  readonly #name: string;
  readonly #key: readonly [number, number];
  readonly #counter = new Uint32Array(4);
  readonly #block = new Uint32Array(4);
  #position: number;

  /** Use `stream` or `restoreStream`. */
  constructor({ key, position }: RandomState) {
    const word = (index: number): number => Number.parseInt(key.slice(8 * index, 8 * index + 8), 16);
    this.#name = key;
    this.#key = [word(0), word(1)];
    this.#counter[2] = word(2);
    this.#counter[3] = word(3);
    this.#position = position;
    if (position % 4 !== 0) this.#fillBlock();
  }

  /** Uniform over the integers in [0, 2³²). */
  uint32(): number {
    const lane = this.#position % 4;
    if (lane === 0) this.#fillBlock();
    this.#position += 1;
    return this.#block[lane]!;
  }

  /** Uniform over the multiples of 2⁻⁵³ in [0, 1). */
  uniform(): number {
    return this.#bits53() / 2 ** 53;
  }

  /** Standard normal (Box and Muller 1958). Keeps one of the pair, so that the position alone describes the stream. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /**
   * Uniform over the integers in [0, n), without modulo bias.
   *
   * @throws RangeError when n is not an integer in [1, 2⁵³)
   */
  integer(n: number): number {
    if (!Number.isSafeInteger(n) || n < 1) throw new RangeError(`n must be an integer in [1, 2^53), but is ${n}`);
    const accepted = 2 ** 53 - (2 ** 53 % n);
    let bits = this.#bits53();
    while (bits >= accepted) bits = this.#bits53();
    return bits % n;
  }

  /** A uniformly random order of the integers in [0, n) (Fisher and Yates). */
  shuffle(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, index) => index);
    for (let last = n - 1; last > 0; last -= 1) {
      const other = this.integer(last + 1);
      const moved = order[last]!;
      order[last] = order[other]!;
      order[other] = moved;
    }
    return order;
  }

  /** Everything needed to go on later, bit for bit, with `restoreStream`. */
  state(): RandomState {
    return { key: this.#name, position: this.#position };
  }

  #bits53(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return high * 2 ** 26 + low;
  }

  #fillBlock(): void {
    const block = Math.floor(this.#position / 4);
    this.#counter[0] = block;
    this.#counter[1] = Math.floor(block / 2 ** 32);
    philox4x32(this.#counter, this.#key, this.#block);
  }
}

/**
 * Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): ten rounds of
 * multiplication and exclusive or that turn a counter (4 words) and a key (2 words) into 4 words, written to `out`.
 */
export function philox4x32(counter: Uint32Array, key: readonly [number, number], out: Uint32Array): void {
  let [key0, key1] = key;
  let c0 = counter[0]!;
  let c1 = counter[1]!;
  let c2 = counter[2]!;
  let c3 = counter[3]!;
  for (let round = 0; round < 10; round += 1) {
    const high0 = highWord(0xd2511f53, c0);
    const low0 = Math.imul(0xd2511f53, c0);
    const high2 = highWord(0xcd9e8d57, c2);
    const low2 = Math.imul(0xcd9e8d57, c2);
    c0 = (high2 ^ c1 ^ key0) >>> 0;
    c1 = low2;
    c2 = (high0 ^ c3 ^ key1) >>> 0;
    c3 = low0;
    // The Weyl sequences of the golden ratio and of √3 − 1.
    key0 = (key0 + 0x9e3779b9) | 0;
    key1 = (key1 + 0xbb67ae85) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** The upper 32 bits of a 32 × 32 bit product. */
function highWord(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle = aHigh * bLow + (low >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) >>> 0;
}
