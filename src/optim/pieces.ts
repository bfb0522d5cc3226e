import { elementCount } from '../graph/tensor.js';
import type { OptimizedParameter } from './adamw.js';

/** Elements that are updated at a time: what an update computes on the way takes a few times their memory. */
const PIECE = 2 ** 20;

/** A parameter, or consecutive elements of a large one as a vector. */
export interface Piece extends OptimizedParameter {
  /** Which elements of which parameter; undefined: all of the one of its name. */
  readonly of?: { readonly parameter: string; readonly start: number };
}

/** Parameters with those of many elements cut into vectors; AdamW treats elements one by one, so nothing else changes. */
export function piecesOf(parameters: readonly OptimizedParameter[]): Piece[] {
  return parameters.flatMap((parameter): Piece[] => {
    const elements = elementCount(parameter.shape);
    if (elements <= PIECE) return [parameter];
    return Array.from({ length: Math.ceil(elements / PIECE) }, (_, i) => {
      const start = i * PIECE;
      const shape = [Math.min(PIECE, elements - start)];
      return { ...parameter, name: `${parameter.name}[${start}]`, shape, of: { parameter: parameter.name, start } };
    });
  });
}
