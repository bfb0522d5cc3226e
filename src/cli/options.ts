import { type Command, Option } from 'commander';
import { z } from 'zod';
import { dottedKeys, keyTree, type Leaf, loadConfig, type StageConfig, type StageName } from '../config/index.js';

/** What every command that reads a configuration was given beside the flags of its keys. */
const given = z.object({
  config: z.array(z.string()).default([]),
  set: z.array(z.string()).default([]),
  json: z.boolean().default(false),
  quiet: z.boolean().default(false),
});

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

/** Adds the flags of a stage's keys and the options that all commands share; the help lists the remaining keys. */
export function addConfigOptions(command: Command, stage: StageName): void {
  for (const [, leaf, flag] of flaggedKeys(stage)) command.addOption(optionOf(leaf, flag));
  addReportingOptions(command);
  command
    .option('--config <file>', 'YAML file with settings; may be repeated, later ones win.', collect)
    .option('--set <key=value>', 'One setting, over those of files; may be repeated.', collect)
    .addHelpText('after', () => `\n${keysHelp(stage)}`);
}

/** Adds the options of {@link Reporting}. */
export function addReportingOptions(command: Command): void {
  command
    .option('--json', 'JSON on stdout; people read stderr.')
    .option('--quiet', 'Tell nothing but warnings and errors.');
}

/** How a command reports: for machines, for people, or hardly. */
export interface Reporting {
  readonly json: boolean;
  readonly quiet: boolean;
}

/**
 * The configuration that the command line adds up to.
 *
 * @param files read before those of `--config`
 * @param positional dotted keys that arguments set
 */
export async function readConfig<Name extends StageName>(
  command: Command,
  stage: Name,
  files: readonly string[] = [],
  positional: Readonly<Record<string, unknown>> = {},
): Promise<StageConfig<Name>> {
  const { config, set } = given.parse(command.opts());
  const flags: Record<string, unknown> = { ...positional };
  for (const [dotted, leaf, flag] of flaggedKeys(stage)) {
    const value: unknown = command.getOptionValue(optionOf(leaf, flag).attributeName());
    if (value !== undefined) flags[dotted] = value;
  }
  return loadConfig({ stage, files: [...files, ...config], sets: set, flags });
}

/** Whether `--json` and `--quiet` were given. */
export function readReporting(command: Command): Reporting {
  const { json, quiet } = given.parse(command.opts());
  return { json, quiet };
}

function* flaggedKeys(stage: StageName): Generator<[string, Leaf, string]> {
  for (const [dotted, node] of dottedKeys(keyTree(stage))) {
    if (node.kind === 'leaf' && node.flag !== undefined) yield [dotted, node, node.flag];
  }
}

function optionOf(leaf: Leaf, flag: string): Option {
  const preset = leaf.defaultText === undefined || leaf.type === 'flag' ? '' : ` [${leaf.defaultText}]`;
  return new Option(flag, leaf.help + preset);
}

/** The keys that have no flag of their own, with defaults and help. */
function keysHelp(stage: StageName): string {
  const lines = ['Settings (in YAML, or --set key=value):'];
  for (const [dotted, node] of dottedKeys(keyTree(stage))) {
    if (node.kind === 'section') lines.push('', `  ${dotted}: ${node.help}`);
    else if (node.kind === 'table')
      lines.push(`    ${dotted}.NAME  ${node.help} [${Object.keys(node.defaults).join(', ')}]`);
    else if (node.flag === undefined)
      lines.push(`    ${dotted}${node.defaultText === undefined ? '' : ` [${node.defaultText}]`}  ${node.help}`);
  }
  return lines.join('\n');
}
