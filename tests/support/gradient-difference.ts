export type Gradients = ReadonlyMap<string, Float32Array>;

/** ‖a − b‖ / ‖b‖ over all gradients. */
export function gradientDifference(a: Gradients, b: Gradients): number {
  let [apart, total] = [0, 0];
  for (const [name, values] of b) {
    for (const [i, value] of values.entries()) {
      apart += (a.get(name)![i]! - value) ** 2;
      total += value ** 2;
    }
  }
  return Math.sqrt(apart / total);
}
