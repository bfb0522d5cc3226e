import { cp, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats } from '../../src/checkpoints/safetensors.js';
import { sourceOfFloats, writeSafetensors } from '../../src/checkpoints/safetensors-writer.js';

export type IsLarge = (name: string, row: number, column: number) => boolean;

/** A copy of a model with values of some weights fifty times as large, in a new folder within `parent`. */
export async function plantOutliers(model: string, parent: string, isLarge: IsLarge): Promise<string> {
  const dir = await mkdtemp(join(parent, 'planted-'));
  await cp(model, dir, { recursive: true });
  const { weights } = await openModelFolder(model);
  const sources = [];
  for (const [name, info] of weights) {
    const tensor = await readFloats(info);
    const columns = tensor.shape.at(-1)!;
    for (let at = 0; at < tensor.data.length; at++) {
      if (isLarge(name, Math.floor(at / columns), at % columns)) tensor.data[at]! *= 50;
    }
    sources.push(sourceOfFloats(name, tensor));
  }
  await writeSafetensors(join(dir, 'model.safetensors'), sources);
  return dir;
}
