import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { loadConfig } from '../config/load.js';
import { debertaV2ToHuggingFace } from '../models/config/deberta-v2.js';
import { toHuggingFaceConfig } from '../models/config/model-config.js';
import { TINY_CLASSIFIER } from '../../tests/support/tiny-encoder.js';
import { TINY } from '../../tests/support/tiny-model.js';
import { doctor } from './doctor.js';

const RECIPE = fileURLToPath(new URL('../../recipes/qwen3-1.7b.yaml', import.meta.url));
const COMMIT = '0123456789012345678901234567890123456789';

let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'duanzi-doctor-'));
  vi.stubEnv('HF_HOME', home);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(home, { recursive: true });
});

/** Puts a `config.json` where the hub's cache has that of a model. */
async function cache(name: string, config: object): Promise<void> {
  const root = join(home, 'hub', `models--${name.replace('/', '--')}`);
  await mkdir(join(root, 'refs'), { recursive: true });
  await mkdir(join(root, 'snapshots', COMMIT), { recursive: true });
  await writeFile(join(root, 'refs', 'main'), COMMIT);
  await writeFile(join(root, 'snapshots', COMMIT, 'config.json'), JSON.stringify(config));
}

const examine = async (sets: readonly string[] = []) => {
  const config = await loadConfig({ stage: 'doctor', files: [RECIPE], sets });
  return doctor([{ recipe: RECIPE, config }], join(home, 'runs'));
};

describe('doctor', () => {
  it('says which model is not there to be planned for', async () => {
    const { recipes } = await examine();
    for (const stage of recipes[0]!.stages) expect(stage).toHaveProperty('unknown');
    expect(JSON.stringify(recipes)).toContain('Qwen/Qwen3-1.7B is neither a folder nor in the cache');
  });

  it('plans from config.json alone: the published models at their published settings', async () => {
    await cache(
      'Qwen/Qwen3-1.7B',
      toHuggingFaceConfig({
        ...TINY,
        vocabSize: 151936,
        hiddenSize: 2048,
        intermediateSize: 6144,
        numHiddenLayers: 28,
        numAttentionHeads: 16,
        numKeyValueHeads: 8,
        headDim: 128,
        dtype: 'bfloat16',
      }),
    );
    await cache('IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-Chinese', debertaV2ToHuggingFace(TINY_CLASSIFIER));
    const { recipes } = await examine();
    const stages = recipes[0]!.stages;
    expect(stages.map(({ stage }) => stage)).toEqual(['sft', 'rm', 'grpo', 'evaluation']);
    const bytes = stages.map((stage) => ('plan' in stage ? stage.plan.bytes : NaN));
    // 1.4e9 weights in the blocks, half a byte each for all sessions; the head's file for training, validation, writing.
    expect(bytes[0]).toBeGreaterThan(0.5 * 1.4e9 + 3 * 2 * 151936 * 2048);
    expect(bytes[0]).toBeLessThan(8 * 2 ** 30);
    expect(bytes[2]).toBeLessThan(10 * 2 ** 30);
    expect(bytes.every(Number.isFinite)).toBe(true);
    const [smaller] = (await examine(['sft.batchSize=1'])).recipes[0]!.stages;
    expect('plan' in smaller! && smaller.plan.bytes < bytes[0]!).toBe(true);
  });

  it('finds the machine: processor, memory, disks, versions', async () => {
    const { machine } = await examine();
    expect(machine.availableBytes).toBeGreaterThan(0);
    expect(machine.availableBytes).toBeLessThanOrEqual(machine.memoryBytes);
    expect(machine.devices).toContain('cpu');
    expect(machine.providers).toContain('cpu');
    expect(machine.disks.every(({ freeBytes }) => freeBytes > 0)).toBe(true);
    expect(machine.versions.onnxruntime).toMatch(/^\d+\.\d+/);
  });
});
