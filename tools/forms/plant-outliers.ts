import { cp, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats } from '../../src/checkpoints/safetensors.js';
import { sourceOfFloats, writeSafetensors } from '../../src/checkpoints/safetensors-writer.js';

const CHANNELS = new Set([5, 40, 41]);
const isNorm = (name: string): boolean => /(layernorm|model\.norm)\.weight$/i.test(name);
const isMatrix = (name: string): boolean => /\.layers?\..*(proj|dense)\.weight$/.test(name);

/** Where channels are made fifty times as large: in the weights of norms, in rows or columns of the blocks' matrices. */
export const PLANTINGS: Readonly<Record<string, (name: string, row: number, column: number) => boolean>> = {
  norms: (name, _, column) => isNorm(name) && CHANNELS.has(column),
  rows: (name, row) => isMatrix(name) && CHANNELS.has(row),
  columns: (name, _, column) => isMatrix(name) && CHANNELS.has(column),
};

/** A copy of a model with one of `PLANTINGS`, in a new folder within `parent`. */
export async function plantOutliers(model: string, parent: string, planting: string): Promise<string> {
  const isLarge = PLANTINGS[planting]!;
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
