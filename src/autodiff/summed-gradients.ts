import type { Value } from '../graph/graph.js';
import { backward } from './backward.js';

/** What the gradients of earlier batches are fed as, by the parameter's name. */
export const gradientName = (parameter: string): string => `gradient/${parameter}`;

/** The output that is this batch's gradient added to them; it may be written where they are. */
export const sumName = (parameter: string): string => `gradient_sum/${parameter}`;

/**
 * Adds to a loss's graph the gradients of parameters, each summed onto a feed of its shape: batch after batch the sum
 * grows in one place, which holds zeros before the first.
 *
 * @returns the sums
 */
export function addSummedGradients(loss: Value, parameters: ReadonlyMap<string, Value>): Value[] {
  const { graph } = loss;
  const onto = new Map(
    Array.from(parameters, ([name, value]) => [value, graph.input(gradientName(name), value.dtype, value.shape)]),
  );
  const sums = backward(loss, [...parameters.values()], { onto });
  for (const [i, name] of [...parameters.keys()].entries()) graph.output(sumName(name), sums[i]!);
  return sums;
}
