import { UserError } from '../errors.js';
import type { Value } from '../graph/graph.js';
import { requireTensors } from './model-folder.js';
import type { TensorInfo } from './safetensors.js';

/**
 * The tensors that a graph's parameters need.
 *
 * @throws UserError when the checkpoint lacks one, or has it in another shape than its config.json implies
 */
export function requireParameters(
  weights: ReadonlyMap<string, TensorInfo>,
  parameters: ReadonlyMap<string, Value>,
): TensorInfo[] {
  const infos = requireTensors(weights, parameters.keys());
  const wrong = infos.find(({ name, shape }) => shape.join() !== parameters.get(name)!.shape.join());
  if (wrong === undefined) return infos;
  throw new UserError({
    code: 'checkpoint.wrong-shape',
    message: `Tensor \`${wrong.name}\` has the shape (${wrong.shape.join(', ')}), but config.json implies (${parameters.get(wrong.name)!.shape.join(', ')}).`,
    where: wrong.file,
    fix: 'Give the config.json that belongs to these weights.',
  });
}
