/** Compressed sparse rows: row i holds entries `rowStart[i]` up to `rowStart[i + 1]`. */
export interface SparseMatrix {
  rows: number;
  columns: number;
  rowStart: Int32Array;
  column: Int32Array;
  value: Float64Array;
}

/** A dense matrix given by its columns, as sparse rows. */
export function fromColumns(columns: readonly ArrayLike<number>[]): SparseMatrix {
  const rows = columns[0]?.length ?? 0;
  const width = columns.length;
  const value = new Float64Array(rows * width);
  columns.forEach((column, j) => {
    for (let i = 0; i < rows; i += 1) value[i * width + j] = column[i]!;
  });
  return {
    rows,
    columns: width,
    rowStart: Int32Array.from({ length: rows + 1 }, (_, i) => i * width),
    column: Int32Array.from(value, (_, i) => i % width),
    value,
  };
}

/** out[i] = row i · vector + offset. */
export function multiply(matrix: SparseMatrix, vector: Float64Array, offset: number, out: Float64Array): void {
  const { rowStart, column, value } = matrix;
  for (let row = 0; row < matrix.rows; row += 1) {
    let sum = offset;
    const end = rowStart[row + 1]!;
    for (let at = rowStart[row]!; at < end; at += 1) sum += value[at]! * vector[column[at]!]!;
    out[row] = sum;
  }
}

/** out += matrixᵀ · vector. */
export function addTransposed(matrix: SparseMatrix, vector: Float64Array, out: Float64Array): void {
  const { rowStart, column, value } = matrix;
  for (let row = 0; row < matrix.rows; row += 1) {
    const factor = vector[row]!;
    const end = rowStart[row + 1]!;
    for (let at = rowStart[row]!; at < end; at += 1) out[column[at]!]! += factor * value[at]!;
  }
}
