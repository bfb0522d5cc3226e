/** Element types that a graph can hold. */
export type DType = 'float32' | 'float64' | 'int8' | 'uint8' | 'int32' | 'int64' | 'uint32' | 'bool';

export interface TypedArrays {
  float32: Float32Array;
  float64: Float64Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
  uint32: Uint32Array;
  bool: Uint8Array;
}

const constructors = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint32: Uint32Array,
  bool: Uint8Array,
} as const;

/** A tensor outside a graph: dense, row-major. */
export interface Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: TypedArrays[D];
}

export const elementCount = (shape: readonly number[]): number => shape.reduce((product, dim) => product * dim, 1);

export const bytesPerElement = (dtype: DType): number => constructors[dtype].BYTES_PER_ELEMENT;

/** A tensor of zeros. */
export function zeros<D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> {
  return { dtype, shape, data: new constructors[dtype](elementCount(shape)) as TypedArrays[D] };
}

/** A tensor of the given numbers (row-major); throws RangeError when their count does not fit the shape. */
export function tensor<D extends DType>(dtype: D, shape: readonly number[], values: Iterable<number>): Tensor<D> {
  const list = values instanceof Array ? values : Array.from(values);
  if (list.length !== elementCount(shape)) {
    throw new RangeError(`${list.length} values do not fill a tensor of shape (${shape.join(', ')})`);
  }
  const result = zeros(dtype, shape);
  if (result.data instanceof BigInt64Array) result.data.set(BigInt64Array.from(list, BigInt));
  else result.data.set(list);
  return result;
}

/** Wraps a typed array without copying. */
export const wrap = <D extends DType>(dtype: D, shape: readonly number[], data: TypedArrays[D]): Tensor<D> => ({
  dtype,
  shape,
  data,
});
