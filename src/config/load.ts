import { resolve } from 'node:path';
import { readAssignment, splitAssignment } from './assignments.js';
import { addPathDefaults, addStandIns, mergeSettings, nest } from './merge.js';
import { asError, explainIssue } from './explain.js';
import type { Problem, Setting } from './settings.js';
import { type StageConfig, type StageName, stageSchemas } from './stages.js';
import { dottedKeys, type KeyNode, keyTree, recipeTree } from './tree.js';
import { readYamlFile } from './yaml-file.js';

export interface ConfigSources<Name extends StageName> {
  readonly stage: Name;
  /** YAML files, later ones over earlier ones. */
  readonly files?: readonly string[];
  /** `key=value` texts of `--set`, over the files. */
  readonly sets?: readonly string[];
  /** Dotted key → value of a flag or a caller, over all else. Texts are read as in `sets`; undefined is skipped. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** What paths in `files`, `sets` and `flags` are relative to; paths within a file are relative to that file. */
  readonly cwd?: string;
}

/**
 * The resolved configuration of a stage: defaults, then files, then sets, then flags. Paths come out absolute.
 *
 * @throws UserError that names every key that is unknown, has a wrong value or contradicts another, with its place
 */
export async function loadConfig<Name extends StageName>(sources: ConfigSources<Name>): Promise<StageConfig<Name>> {
  const { stage, files = [], sets = [], flags = {} } = sources;
  const cwd = resolve(sources.cwd ?? '.');
  const known = { own: keyTree(stage), recipe: recipeTree() };
  const own: Setting[] = [];
  const foreign: Setting[] = [];
  const problems: Problem[] = [];

  for (const file of files) {
    const found = await readYamlFile(resolve(cwd, file), known.own, known.recipe);
    own.push(...found.own);
    foreign.push(...found.foreign);
    problems.push(...found.problems);
  }
  const assign = (key: string, value: unknown, where: string): void => {
    const read = readAssignment(key, value, where, cwd, known);
    if ('code' in read) problems.push(read);
    else own.push(read);
  };
  for (const text of sets) {
    const [key, value] = splitAssignment(text);
    assign(key, value, `--set ${key}`);
  }
  const nodes = new Map(dottedKeys(known.own));
  for (const [key, value] of Object.entries(flags)) {
    if (value !== undefined) assign(key, value, flagName(nodes.get(key)) ?? key);
  }

  const winners = addStandIns(mergeSettings(own, known.own), foreign, known.own);
  const input = nest(addPathDefaults(winners, known.own, cwd));
  const parsed = stageSchemas[stage].safeParse(input);
  if (!parsed.success) problems.push(...parsed.error.issues.map((issue) => explainIssue(issue, winners, known.own)));
  if (problems.length > 0) throw asError(problems);
  return parsed.data as StageConfig<Name>;
}

/** `--seed` of a key with the flag `--seed <n>`. */
function flagName(node: KeyNode | undefined): string | undefined {
  return node?.kind === 'leaf' ? node.flag?.split(' ')[0] : undefined;
}
