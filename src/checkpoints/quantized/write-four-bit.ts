import type { WeightDtype } from '../../models/config/fields.js';
import { adaptedModules } from '../adapter.js';
import { narrowBF16, narrowF16, widenBF16, widenF16 } from '../float-formats.js';
import type { TensorInfo } from '../safetensors.js';
import type { TensorSource } from '../safetensors-writer.js';
import { bytesOf } from '../stored-dtype.js';
import { quantizeFourBit, type FourBitTensor } from './four-bit.js';
import type { BitsAndBytesConfig } from './quantization-config.js';

/** Values a block, of what is written here. */
const blockSize = 64;

/** The linear modules of a decoder's blocks: what transformers quantises of a causal model, the head left out. */
export const blockModules = (weights: ReadonlyMap<string, TensorInfo>): string[] => {
  const last = new Set(
    [...weights]
      .filter(([name, { shape }]) => shape.length === 2 && /\.layers\.\d+\..+\.weight$/.test(name))
      .map(([name]) => name.split('.').at(-2)!),
  );
  return last.size === 0 ? [] : adaptedModules(weights, { targetModules: [...last] });
};

/** A weight to be quantised: how it is read, as float32. */
export interface WeightToQuantize {
  readonly name: string;
  readonly shape: readonly number[];
  read(): Promise<Float32Array>;
}

/**
 * The tensors that bitsandbytes keeps of a weight in 4 bits, byte for byte. The weight is quantised now, of which only
 * the scales are kept, and again when its codes are written, so that the codes of a whole model are never in memory.
 *
 * @param dtype what the weight is rounded to before, as the model would have it in memory
 */
export async function fourBitSources(
  weight: WeightToQuantize,
  { kind, nested }: BitsAndBytesConfig,
  dtype: WeightDtype,
): Promise<TensorSource[]> {
  const { name, shape } = weight;
  const quantize = async (): Promise<FourBitTensor> =>
    quantizeFourBit(rounded(await weight.read(), dtype), shape, { kind, nested, blockSize });
  const { scales, values } = await quantize();
  const state = Buffer.from(stateJson({ kind, shape, dtype, scales }), 'utf8');
  const elements = shape.reduce((product, size) => product * size, 1);
  const packed: TensorSource = {
    name,
    dtype: 'U8',
    shape: [Math.ceil(elements / 2), 1],
    async *bytes() {
      yield (await quantize()).packed;
    },
  };
  const part = (suffix: string, data: Float32Array | Uint8Array): TensorSource => ({
    name: `${name}.${suffix}`,
    dtype: data instanceof Float32Array ? 'F32' : 'U8',
    shape: [data.length],
    bytes: () => [bytesOf(data)],
  });
  const common = [packed, part('quant_map', values), part(`quant_state.bitsandbytes__${kind}`, state)];
  if (scales instanceof Float32Array) return [...common, part('absmax', scales)];
  return [
    ...common,
    part('absmax', scales.codes),
    part('nested_absmax', scales.absmax),
    part('nested_quant_map', scales.values),
  ];
}

/** What is no tensor of it, as Python writes it. */
function stateJson({
  kind,
  shape,
  dtype,
  scales,
}: Pick<FourBitTensor, 'kind' | 'shape' | 'scales'> & { readonly dtype: WeightDtype }): string {
  const fields: [string, string][] = [
    ['quant_type', `"${kind}"`],
    ['blocksize', String(blockSize)],
    ['dtype', `"${dtype}"`],
    ['shape', `[${shape.join(', ')}]`],
  ];
  if (!(scales instanceof Float32Array)) {
    fields.push(
      ['nested_blocksize', String(scales.blockSize)],
      ['nested_dtype', '"float32"'],
      ['nested_offset', pythonFloat(scales.offset)],
    );
  }
  return `{${fields.map(([key, value]) => `"${key}": ${value}`).join(', ')}}`;
}

/** A number of moderate size as Python's `repr` has it: 0.25, 1.0, 2.5e-05. */
export function pythonFloat(value: number): string {
  if (Number.isInteger(value)) return `${value}.0`;
  if (Math.abs(value) >= 1e-4) return String(value);
  return value.toExponential().replace(/e-(\d)$/, 'e-0$1');
}

function rounded(values: Float32Array, dtype: WeightDtype): Float32Array {
  if (dtype === 'float32') return values;
  const halves = new Uint16Array(values.length);
  const [narrow, widen] = dtype === 'float16' ? [narrowF16, widenF16] : [narrowBF16, widenBF16];
  narrow(values, halves);
  widen(halves, values);
  return values;
}
