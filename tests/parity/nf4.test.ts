import { describe, expect, it } from 'vitest';
import { dequantizeFourBit, quantizeFourBit } from '../../src/checkpoints/quantized/four-bit.js';
import { readHeader, readTensor } from '../../src/checkpoints/safetensors.js';
import { golden, goldenJson } from '../support/golden.js';

interface Case {
  readonly file: string;
  readonly shape: [number, number];
  readonly dtype: 'float32' | 'bfloat16';
  readonly blocksize: number;
  readonly nested: boolean;
}

const { cases } = goldenJson('nf4/cases.json') as { cases: Case[] };

describe('4-bit quantisation as bitsandbytes does it, bit for bit', () => {
  it.each(cases)('$file', async ({ file, shape, dtype, blocksize, nested }) => {
    const { tensors } = await readHeader(golden(`nf4/${file}`));
    const read = async (name: string) => readTensor(tensors.get(name)!);
    const weight = (await read('weight')) as Float32Array;

    const quantized = quantizeFourBit(weight, shape, { blockSize: blocksize, nested });

    expect(quantized.packed).toEqual(await read('packed'));
    expect(quantized.values).toEqual(await read('code'));
    if (quantized.scales instanceof Float32Array) expect(quantized.scales).toEqual(await read('absmax'));
    else {
      expect(quantized.scales.codes).toEqual(await read('absmax'));
      expect(quantized.scales.values).toEqual(await read('nested_code'));
      expect(quantized.scales.absmax).toEqual(await read('nested_absmax'));
      expect(quantized.scales.offset).toBe(Number((await read('nested_offset'))[0]));
    }
    if (dtype === 'float32') expect(dequantizeFourBit(quantized)).toEqual(await read('dequantized'));
  });
});
