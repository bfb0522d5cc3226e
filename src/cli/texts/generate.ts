import type { Command } from 'commander';
import { z } from 'zod';
import type { GenerateConfig } from '../../config/index.js';
import { generateInput, type GenerateInput, type GenerateOutput } from '../../config/records.js';
import { UserError } from '../../errors.js';
import type { StageContext } from '../../runs/events.js';
import type { Setup } from '../entry.js';
import { safeText } from '../event-text.js';
import { listening } from '../listen.js';
import { addConfigOptions, readConfig, readReporting } from '../options.js';
import { readLines } from './read-lines.js';
import { outputFile, type Results, writeResults } from './write-lines.js';

/** Writes a text for each input, in order. */
export type Generate = (
  config: GenerateConfig,
  inputs: readonly GenerateInput[],
  context: StageContext,
) => Results<GenerateOutput>;

const options = z.object({
  headline: z.string().optional(),
  words: z.array(z.string()).optional(),
  prompt: z.string().optional(),
  input: z.string().optional(),
  out: z.string().optional(),
});
type Options = z.output<typeof options>;

const FORMS = '{"prompt"}, {"headline"}, {"words": [A, B]}, {"messages": [...]} or {"input_ids": [...]}';

/** `generate`: plain text for one prompt, JSON Lines for a file or with `--json`. */
export function generateCommand(generate: Generate): Setup {
  return (command, host) => {
    command
      .option('--headline <text>', 'Headline to write a joke about.')
      .option('--words <word...>', 'Two words to use in a joke.')
      .option('--prompt <text>', 'Prompt, as it stands.')
      .option('--input <file>', 'JSON Lines file of prompts; - reads standard input.')
      .option('--out <dir>', 'Also write generate.jsonl into this folder.');
    addConfigOptions(command, 'generate');
    command.action(async () => {
      const given = options.parse(command.opts());
      const reporting = readReporting(command);
      const config = await readConfig(command, 'generate');
      const file = outputFile(given.out, 'generate');
      const inputs = await readInputs(given, command);
      const asLines = reporting.json || given.input !== undefined;
      const show = (output: GenerateOutput): { line: string; print: string } => {
        const line = JSON.stringify(toWire(output));
        return { line, print: asLines ? line : safeText(output.completion ?? output.completionIds.join(' ')) };
      };
      await listening({ ...reporting, json: false }, host, (context) =>
        writeResults(generate(config, inputs, context), show, host, file),
      );
    });
  };
}

async function readInputs(given: Options, command: Command): Promise<readonly GenerateInput[]> {
  const sources = (['headline', 'words', 'prompt', 'input'] as const).filter((name) => given[name] !== undefined);
  if (sources.length !== 1) {
    throw new UserError({
      code: 'cli.usage',
      message:
        sources.length === 0 ? 'There is nothing to write about.' : `There are ${sources.join(' and ')} at once.`,
      where: command.name(),
      fix: 'Give one of --headline TEXT, --words A B, --prompt TEXT, --input FILE.',
    });
  }
  if (given.input !== undefined) return readLines({ file: given.input, schema: generateInput, forms: FORMS });
  const { headline, words, prompt } = given;
  const parsed = generateInput.safeParse({ headline, words, prompt });
  if (parsed.success) return [parsed.data];
  throw new UserError({
    code: 'cli.usage',
    message: words === undefined ? 'The text is empty.' : `--words takes two words and got ${words.length}.`,
    where: `--${sources.join()}`,
    fix: words === undefined ? 'Give a text.' : 'Write --words A B.',
  });
}

function toWire({ prompt, completion, completionIds, finishReason, reward }: GenerateOutput): Record<string, unknown> {
  return { prompt, completion, completion_ids: completionIds, finish_reason: finishReason, reward };
}
