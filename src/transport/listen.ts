export { endpointText, listenError } from '../base/listen.ts'
