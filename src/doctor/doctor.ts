import type { DoctorConfig } from '../config/stages.js';
import { examineMachine, type Machine } from './machine.js';
import { planStages, type StagePlan } from './stages.js';

/** A recipe and what its stages take. */
export interface Examined {
  readonly recipe: string;
  readonly stages: readonly StagePlan[];
}

export interface Diagnosis {
  readonly machine: Machine;
  readonly recipes: readonly Examined[];
}

/**
 * What this machine brings, and what each stage of some recipes needs of it. Reads nothing but configurations, fetches
 * nothing and computes nothing.
 *
 * @param out where runs are written
 */
export async function doctor(
  recipes: readonly { readonly recipe: string; readonly config: DoctorConfig }[],
  out: string,
): Promise<Diagnosis> {
  const examined: Examined[] = [];
  for (const { recipe, config } of recipes) examined.push({ recipe, stages: await planStages(config) });
  return { machine: await examineMachine(out), recipes: examined };
}
