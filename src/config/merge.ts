import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseModelId } from './model-id.js';
import type { Setting } from './settings.js';
import { dottedKeys, type KeyNode, type Section } from './tree.js';

/** The winning setting of every key that was given, by dotted key. */
export type Winners = ReadonlyMap<string, Setting>;

/** Lets later settings win over earlier ones; null takes a setting back, and an entry of a table joins the others. */
export function mergeSettings(settings: readonly Setting[], tree: Section): Winners {
  const nodes = new Map(dottedKeys(tree));
  const winners = new Map<string, Setting>();
  for (const setting of settings) {
    const dotted = setting.path.join('.');
    const node = nodes.get(dotted);
    if (setting.value === null) winners.delete(dotted);
    else if (setting.entry === undefined) winners.set(dotted, { ...setting, value: absolute(setting, node) });
    else winners.set(dotted, joinEntry(setting, setting.entry, winners.get(dotted), node));
  }
  return winners;
}

/** Adds, for each key that was not given, what the recipe says under the key that stands in for it. */
export function addStandIns(winners: Winners, foreign: readonly Setting[], tree: Section): Winners {
  const all = new Map(winners);
  for (const [dotted, node] of dottedKeys(tree)) {
    if (node.kind !== 'leaf' || node.from === undefined || all.has(dotted)) continue;
    const given = foreign.findLast((setting) => setting.path.join('.') === node.from);
    if (given === undefined || given.value === null) continue;
    all.set(dotted, { ...given, path: dotted.split('.'), value: absolute(given, node) });
  }
  return all;
}

/** Adds the defaults that are paths, which are relative to the working directory. */
export function addPathDefaults(winners: Winners, tree: Section, cwd: string): Winners {
  const all = new Map(winners);
  for (const [dotted, node] of dottedKeys(tree)) {
    if (node.kind !== 'leaf' || !node.isPath || node.defaultText === undefined || all.has(dotted)) continue;
    const value = resolve(cwd, node.defaultText);
    all.set(dotted, { path: dotted.split('.'), value, where: 'default', base: cwd });
  }
  return all;
}

/** The settings as one nested object, as the schema takes it. */
export function nest(winners: Winners): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const { path, value } of winners.values()) {
    let level = root;
    for (const name of path.slice(0, -1)) level = (level[name] ??= {}) as Record<string, unknown>;
    level[path.at(-1)!] = value;
  }
  return root;
}

function absolute(setting: Setting, node: KeyNode | undefined): unknown {
  const { value, base } = setting;
  if (node?.kind !== 'leaf' || !node.isPath || typeof value !== 'string' || value === '') return value;
  const path = resolve(base, value);
  return node.isModel && parseModelId(value) !== undefined && !existsSync(path) ? value : path;
}

function joinEntry(setting: Setting, entry: string, before: Setting | undefined, node: KeyNode | undefined): Setting {
  const others: unknown = before?.value ?? (node?.kind === 'table' ? node.defaults : {});
  return { ...setting, value: { ...(typeof others === 'object' ? others : {}), [entry]: setting.value } };
}
