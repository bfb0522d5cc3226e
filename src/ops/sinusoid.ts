import type { Emitter } from './record.js';

/** π/2 in three parts: a multiple of the first two is exact up to 2¹⁶ of them (Cody and Waite, 1980). */
const HALF_PI = splitHalfPi();

function splitHalfPi(): readonly [number, number, number] {
  const first = 201 / 128;
  const rest = Math.PI / 2 - first;
  const second = Math.floor(rest * 2 ** 19) / 2 ** 19;
  return [first, second, rest - second];
}

/** Minimax polynomials on ±π/4 of the Cephes library: sin r = r + r·z·S(z), cos r = 1 − z/2 + z²·C(z), with z = r². */
const SINE = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1];
const COSINE = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2];

/**
 * Writes sin(x + quarters·π/2) of a float32 ONNX value in plain arithmetic, within 2e-7 for |x| ≤ 100,000. What shaders
 * offer under that name may be off by 2⁻¹¹, and by anything beyond ±π
 * (https://www.w3.org/TR/WGSL/#floating-point-accuracy): too far for the angles of positions.
 */
export function sinusoid(emitter: Emitter, x: string, quarters: 0 | 1): string {
  const number = (value: number): string => emitter.constant('float32', [], [value]);
  const binary =
    (opType: string) =>
    (a: string, b: string): string =>
      emitter.node(opType, [a, b]);
  const [add, sub, mul] = [binary('Add'), binary('Sub'), binary('Mul')];
  const floor = (value: string): string => emitter.node('Floor', [value]);
  const polynomial = (coefficients: readonly number[], z: string): string =>
    coefficients.map(number).reduce((sum, coefficient) => add(mul(sum, z), coefficient));
  /** 1 where a whole number is odd, else 0. */
  const parity = (whole: string, half: string): string => sub(whole, mul(half, number(2)));

  // x = turns·π/2 + r with |r| ≤ π/4
  const turns = floor(add(mul(x, number(2 / Math.PI)), number(0.5)));
  const r = HALF_PI.reduce((rest, part) => sub(rest, mul(turns, number(part))), x);
  const z = mul(r, r);
  const sine = add(r, mul(mul(r, z), polynomial(SINE, z)));
  const cosine = add(sub(number(1), mul(z, number(0.5))), mul(mul(z, z), polynomial(COSINE, z)));

  const quadrant = add(turns, number(quarters));
  const half = floor(mul(quadrant, number(0.5)));
  const swapped = emitter.node('Greater', [parity(quadrant, half), number(0.5)]);
  const negative = parity(half, floor(mul(half, number(0.5))));
  return mul(emitter.node('Where', [swapped, cosine, sine]), sub(number(1), mul(negative, number(2))));
}
