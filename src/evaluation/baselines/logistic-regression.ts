import { minimise } from './lbfgs.js';
import { addTransposed, multiply, type SparseMatrix } from './sparse.js';

export interface LogisticOptions {
  /** Inverse strength of the L2 penalty, as in scikit-learn; default 1. */
  C?: number;
  /** Largest component of the gradient (of the objective divided by C × rows) at which to stop; default 1e-7. */
  tolerance?: number;
  maxIterations?: number;
  signal?: AbortSignal | undefined;
}

export interface LogisticModel {
  weights: Float64Array;
  intercept: number;
  iterations: number;
  converged: boolean;
}

/**
 * Minimises C · Σ log(1 + exp(−y (w·x + b))) + ½‖w‖² with y = ±1; the intercept b is not penalised (scikit-learn's
 * `LogisticRegression` with lbfgs).
 *
 * @param labels 0 or 1, one a row
 */
export async function fitLogisticRegression(
  features: SparseMatrix,
  labels: ArrayLike<number>,
  { C = 1, tolerance = 1e-7, maxIterations = 2000, signal }: LogisticOptions = {},
): Promise<LogisticModel> {
  const { rows, columns } = features;
  const margins = new Float64Array(rows);
  const residuals = new Float64Array(rows);
  const penalty = 1 / (C * rows);
  const found = await minimise(
    (parameters, gradient) => {
      const weights = parameters.subarray(0, columns);
      multiply(features, weights, parameters[columns]!, margins);
      let loss = 0;
      let interceptGradient = 0;
      for (let row = 0; row < rows; row += 1) {
        const margin = margins[row]!;
        const label = labels[row]!;
        loss += (softplus(margin) - label * margin) / rows;
        residuals[row] = (sigmoid(margin) - label) / rows;
        interceptGradient += residuals[row]!;
      }
      gradient.fill(0);
      addTransposed(features, residuals, gradient);
      gradient[columns] = interceptGradient;
      let squares = 0;
      for (let j = 0; j < columns; j += 1) {
        squares += weights[j]! ** 2;
        gradient[j]! += penalty * weights[j]!;
      }
      return loss + (penalty / 2) * squares;
    },
    new Float64Array(columns + 1),
    { tolerance, maxIterations, signal },
  );
  return {
    weights: found.x.slice(0, columns),
    intercept: found.x[columns]!,
    iterations: found.iterations,
    converged: found.converged,
  };
}

/** P(label = 1), one a row. */
export function predictProbabilities(model: LogisticModel, features: SparseMatrix): Float64Array {
  const margins = new Float64Array(features.rows);
  multiply(features, model.weights, model.intercept, margins);
  return margins.map(sigmoid);
}

/** log(1 + eˣ) without overflow. */
function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}
