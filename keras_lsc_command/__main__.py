"""`python -m keras_lsc_command` is `keras-lsc`."""

from keras_lsc_command import main

if __name__ == "__main__":
    main()
