import { Command, CommanderError } from 'commander';
import { UserError } from '../errors.js';
import type { Entry, Host } from './entry.js';
import { version } from './version.js';

/** Names of commands that hold others, with what they are about. */
const GROUPS: Readonly<Record<string, string>> = { data: 'Look at, fetch and split data.' };

/**
 * Runs the command that `argv` (without node and script) names.
 *
 * @throws UserError for a command or option that does not exist, and whatever the command throws
 */
export async function runProgram(argv: readonly string[], entries: readonly Entry[], host: Host): Promise<void> {
  try {
    await programOf(entries, host).parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help is asked for by --help, and by a name alone that needs another.
    if (error.exitCode !== 0 && error.code !== 'commander.help') throw await usageError(error, argv, entries);
  }
}

function programOf(entries: readonly Entry[], host: Host): Command {
  const program = silent(new Command('duanzi'), host)
    .description('Post-trains a language model to write Chinese jokes: SFT, reward model, GRPO.')
    .version(version(), '--version', 'Print the version.')
    .helpOption('-h, --help', 'Show this help; every command has its own.')
    .helpCommand(false)
    .enablePositionalOptions();
  const groups = new Map<string, Command>();
  for (const entry of entries) {
    const [first = '', second] = entry.name.split(' ');
    const parent = second === undefined ? program : groupOf(first, program, groups, host);
    addEntry(parent, second ?? first, entry, host);
  }
  return program;
}

function groupOf(name: string, program: Command, groups: Map<string, Command>, host: Host): Command {
  const known = groups.get(name);
  if (known !== undefined) return known;
  const group = silent(program.command(name), host)
    .summary(GROUPS[name] ?? '')
    .helpCommand(false);
  group.enablePositionalOptions();
  groups.set(name, group);
  return group;
}

/** A command that knows only its name until it is called; it then loads itself and reads the rest of the line. */
function addEntry(parent: Command, name: string, entry: Entry, host: Host): void {
  const stand = silent(parent.command(name), host).summary(entry.summary).helpOption(false);
  stand.argument('[rest...]').allowUnknownOption().passThroughOptions();
  stand.usage('[options]').action(async (rest: string[]) => {
    const command = silent(new Command(`duanzi ${entry.name}`), host).description(entry.summary);
    command.version(version(), '--version', 'Print the version.').helpOption('-h, --help', 'Show this help.');
    const setup = await entry.load();
    setup(command, host);
    await command.parseAsync(rest, { from: 'user' });
  });
}

/** Errors are thrown, not printed; help goes to stdout. */
function silent(command: Command, host: Host): Command {
  const write = (text: string): void => {
    host.print(text.trimEnd());
  };
  return command
    .exitOverride()
    .configureOutput({ writeOut: write, writeErr: write, outputError: () => undefined })
    .configureHelp({ subcommandTerm: termOf });
}

/** A command in a list: `sft`, `data check|pull|split`. */
function termOf(command: Command): string {
  const below = command.commands.map((child) => child.name());
  return below.length === 0 ? command.name() : `${command.name()} ${below.join('|')}`;
}

async function usageError(
  error: CommanderError,
  argv: readonly string[],
  entries: readonly Entry[],
): Promise<UserError> {
  const [, message = '', hint] = /^(?:error: )?(.*?)\s*(?:\((Did you mean .*)\))?$/s.exec(error.message) ?? [];
  const where = 'the command line';
  if (error.code !== 'commander.unknownCommand') {
    const fix = hint ?? `See duanzi ${nameIn(argv, entries)}--help.`;
    return new UserError({ code: 'cli.usage', message: `${capital(message)}.`, where, fix, cause: error });
  }
  const { nearest } = await import('../config/nearest.js');
  const [first = '', second] = argv;
  const inGroup = first in GROUPS && second !== undefined;
  const typed = inGroup ? `${first} ${second}` : first;
  const names = entries.map(({ name }) => (inGroup ? name : name.split(' ')[0]!));
  const near = nearest(typed, names);
  return new UserError({
    code: 'cli.unknown-command',
    message: `There is no command "${typed}".`,
    where,
    fix: `${near === undefined ? '' : `Did you mean duanzi ${near}? `}duanzi --help lists all.`,
    cause: error,
  });
}

/** The command that was meant, followed by a space, or nothing. */
function nameIn(argv: readonly string[], entries: readonly Entry[]): string {
  const found = entries.find(({ name }) => name.split(' ').every((part, index) => argv[index] === part));
  return found === undefined ? '' : `${found.name} `;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, '');
}
