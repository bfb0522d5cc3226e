import { UserError } from '../errors.js';
import { busy, isBusy, networkFault } from '../transfer/download.js';

/** A connection that stays silent for so many milliseconds counts as cut. */
const SILENCE = 30_000;

/** `fetch` with headers, whose passing faults are `Transient` and that never waits for ever. */
export function apiFetch(headers: Readonly<Record<string, string>>, signal: AbortSignal | undefined): typeof fetch {
  return async (input, init) => {
    const timeout = AbortSignal.timeout(SILENCE);
    const response = await fetch(input, {
      ...init,
      headers: { ...(init?.headers as Record<string, string> | undefined), ...headers },
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    }).catch((cause: unknown) => {
      signal?.throwIfAborted();
      throw networkFault(cause);
    });
    if (isBusy(response.status)) throw busy(response);
    return response;
  };
}

export interface Place {
  /** Of the server, for people. */
  readonly server: string;
  readonly model: string;
  readonly url: string;
  /** How to say who one is. */
  readonly login: string;
}

/** What a refusal of a model or its file means; undefined for a status that says nothing of its own. */
export function refusalOf(status: number, { server, model, url, login }: Place): UserError | undefined {
  switch (status) {
    case 401:
    case 403:
      return new UserError({
        code: 'hub.no-access',
        message: `${server} does not give ${model} to this user (${status}): it does not exist, is private, or its licence must be accepted there first.`,
        where: url,
        fix: `Check the name; for a model that needs it, ${login}.`,
      });
    case 404:
      return new UserError({
        code: 'hub.no-model',
        message: `${server} has no ${model} (404).`,
        where: url,
        fix: 'Check the name and the revision, or give the folder of a model.',
      });
    default:
      return undefined;
  }
}

export const unexpected = (status: number, { server, model, url }: Place): UserError =>
  new UserError({
    code: 'hub.refused',
    message: `${server} answers ${status} to the question for ${model}.`,
    where: url,
    fix: 'Check the address of the server and try again later.',
  });

export const notTheApi = ({ server, url }: Pick<Place, 'server' | 'url'>, cause?: unknown): UserError =>
  new UserError({
    code: 'hub.answer',
    message: `The answer is not what ${server} answers.`,
    where: url,
    fix: 'Check the address of the server, and that no login page of a network stands in between.',
    cause,
  });
