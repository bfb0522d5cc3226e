import type { StageName } from '../config/index.js';
import type { ClassifyInput, ClassifyOutput, ScoreInput, ScoreOutput } from '../config/records.js';
import type { Entry } from './entry.js';
import type { Report } from './report-command.js';
import type { Stage, TrainerName } from './stage-command.js';
import type { Generate } from './texts/generate.js';
import type { Measure } from './texts/measure.js';

/*
 * Rows of the command table by their kind. The types above vanish when compiled: nothing is loaded before `load`.
 */

/** A stage that leaves a run folder. */
export function stage<Name extends StageName>(name: Name, summary: string, load: () => Promise<Stage<Name>>): Entry {
  return { name, summary, load: async () => (await import('./stage-command.js')).stageCommand(name, await load()) };
}

/** A stage of optimizer steps. */
export function trainer<Name extends TrainerName>(
  name: Name,
  summary: string,
  load: () => Promise<Stage<Name>>,
): Entry {
  return { name, summary, load: async () => (await import('./stage-command.js')).trainerCommand(name, load) };
}

/** The pipeline, which takes a recipe as its argument. */
export function pipeline(summary: string, load: () => Promise<Stage<'run'>>): Entry {
  return { name: 'run', summary, load: async () => (await import('./stage-command.js')).recipeCommand(load) };
}

export function generate(summary: string, load: () => Promise<Generate>): Entry {
  const setup: Entry['load'] = async () => (await import('./texts/generate.js')).generateCommand(await load());
  return { name: 'generate', summary, load: setup };
}

export function score(summary: string, load: () => Promise<Measure<'score', ScoreInput, ScoreOutput>>): Entry {
  const setup: Entry['load'] = async () => (await import('./texts/measure.js')).scoreCommand(await load());
  return { name: 'score', summary, load: setup };
}

export function classify(
  summary: string,
  load: () => Promise<Measure<'classify', ClassifyInput, ClassifyOutput>>,
): Entry {
  const setup: Entry['load'] = async () => (await import('./texts/measure.js')).classifyCommand(await load());
  return { name: 'classify', summary, load: setup };
}

export function report(summary: string, load: () => Promise<Report>): Entry {
  return {
    name: 'report',
    summary,
    load: async () => (await import('./report-command.js')).reportCommand(await load()),
  };
}

/** A command that is all of its own. */
export function plain(name: string, summary: string, load: Entry['load']): Entry {
  return { name, summary, load };
}
