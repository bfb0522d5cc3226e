import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { z } from 'zod';
import type { Message } from '../config/messages.js';
import { UserError } from '../errors.js';
import type { Tokenizer } from './tokenizer.js';

/** tokenizer_config.json: one template, or several with names of which `default` is the one for chatting. */
const configSchema = z.looseObject({
  chat_template: z
    .union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
    .nullish()
    .catch(undefined),
});

/** What some templates write as today's date; fixed, so that a prompt is the same tomorrow. It is Llama 3.1's own. */
const DATE_MACRO = '{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}';

/**
 * How a model wants conversations written, in Jinja, as transformers' `apply_chat_template` does it. Thinking is off in
 * templates that know `enable_thinking`.
 */
export class ChatTemplate {
  readonly #template: Template;

  /** @throws UserError where the source is no Jinja; `file` is where it stands */
  constructor(
    source: string,
    private readonly tokenizer: Tokenizer,
    private readonly file: string,
  ) {
    try {
      this.#template = new Template(source.includes('strftime_now') ? DATE_MACRO + source : source);
    } catch (cause) {
      throw this.#broken(cause, file);
    }
  }

  /**
   * The text that makes the model answer a conversation.
   *
   * @throws UserError where the template refuses the conversation; `where` is where it stands
   */
  prompt(turns: readonly Message[], where: string): string {
    return this.#withoutBos(this.#render(turns, true, where));
  }

  /**
   * A conversation that ends with the assistant's turn, as the prompt that asks for that turn and the rest. The rest
   * ends with the token that ends a turn; what the template writes after EOS is left out, because nothing reads it.
   */
  pair(turns: readonly Message[], where: string): { readonly prompt: string; readonly completion: string } {
    const prompt = this.#render(turns.slice(0, -1), true, where);
    const whole = this.#render(turns, false, where);
    // Where the template writes a given turn otherwise than it asks for one, what is asked for counts.
    const rest = whole.startsWith(prompt) ? whole.slice(prompt.length) : turns.at(-1)!.content;
    const ended = rest.trimEnd();
    const eos = this.#tokenOf('eos');
    return { prompt: this.#withoutBos(prompt), completion: eos !== '' && ended.endsWith(eos) ? ended : rest };
  }

  #render(messages: readonly Message[], ask: boolean, where: string): string {
    const roles = ['bos', 'eos', 'pad', 'unk'] as const;
    const tokens = Object.fromEntries(roles.map((role): [string, string] => [`${role}_token`, this.#tokenOf(role)]));
    try {
      return this.#template.render({
        ...tokens,
        messages,
        add_generation_prompt: ask,
        enable_thinking: false,
      });
    } catch (cause) {
      throw this.#broken(cause, where);
    }
  }

  /** Encoding puts BOS before every text by itself, for tokenizers that have it so. */
  #withoutBos(text: string): string {
    const bos = this.#tokenOf('bos');
    const added = bos !== '' && this.tokenizer.encode('')[0] === this.tokenizer.special.bos;
    return added && text.startsWith(bos) ? text.slice(bos.length) : text;
  }

  #tokenOf(role: 'bos' | 'eos' | 'pad' | 'unk'): string {
    const id = this.tokenizer.special[role];
    return id === undefined ? '' : (this.tokenizer.tokenOf(id) ?? '');
  }

  #broken(cause: unknown, where: string): UserError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new UserError({
      code: 'chat.template',
      message: `The model's chat template cannot write this conversation: ${reason.replace(/\.$/, '')}.`,
      where,
      fix: `Write the conversation as the template in ${this.file} has it, or correct the template.`,
      cause,
    });
  }
}

/** The chat template of a model folder: `chat_template.jinja`, else in `tokenizer_config.json`; undefined without one. */
export async function loadChatTemplate(dir: string, tokenizer: Tokenizer): Promise<ChatTemplate | undefined> {
  const file = join(dir, 'chat_template.jinja');
  const own = await readFile(file, 'utf8').catch(() => undefined);
  if (own !== undefined) return new ChatTemplate(own, tokenizer, file);
  const configFile = join(dir, 'tokenizer_config.json');
  const config = await readFile(configFile, 'utf8').catch(() => '{}');
  const { chat_template: given } = configSchema.parse(JSON.parse(config));
  const source = typeof given === 'string' ? given : given?.find(({ name }) => name === 'default')?.template;
  return source === undefined ? undefined : new ChatTemplate(source, tokenizer, configFile);
}
