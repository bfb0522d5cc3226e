import { elementwiseCases, logicCases } from './elementwise-cases.js';
import { frozenCases } from './frozen-cases.js';
import { modelCases } from './model-cases.js';
import type { OpCase } from './op-case.js';
import { shapeCases, sourceCases } from './shape-cases.js';

/** Every op that a plain loop describes; the ops with a state or a seed have tests of their own. */
export const opCases: readonly OpCase[] = [
  ...elementwiseCases,
  ...logicCases,
  ...shapeCases,
  ...modelCases,
  ...frozenCases,
  ...sourceCases,
];
